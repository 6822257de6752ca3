"""llama.cpp's own converter, run on many models in one process; executed as a program.

Argument: the folder of llama.cpp. stdin: JSON, a list of {"folder", "target", "type", "pre"}, where
"pre" is the pre-tokenizer, or empty to find it out as it does.
"""

import json
import sys
import types

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    # It imports sentencepiece before it looks whether there is a tokenizer.model for it.
    import transformers  # noqa: F401 - looks whether the true one is there

    sys.modules.setdefault("sentencepiece", types.SimpleNamespace(SentencePieceProcessor=None))
    import conversion.base
    import convert_hf_to_gguf

    find_out = conversion.base.TextModel.get_vocab_base_pre
    for job in json.load(sys.stdin):
        pre = job["pre"]
        conversion.base.TextModel.get_vocab_base_pre = (
            (lambda self, tokenizer, pre=pre: pre) if pre else find_out
        )
        options = ["--outtype", job["type"], "--outfile", job["target"]]
        sys.argv = ["convert_hf_to_gguf.py", job["folder"], *options]
        convert_hf_to_gguf.main()
