"""llama.cpp's own converter, told which pre-tokenizer it is; executed as a program.

Arguments: the folder of llama.cpp, the pre-tokenizer ("" to find it out), then the converter's own.
"""

import sys
import types

if __name__ == "__main__":
    folder, pre = sys.argv[1:3]
    sys.path.insert(0, folder)
    # It imports sentencepiece before it looks whether there is a tokenizer.model for it.
    import transformers  # noqa: F401 - looks whether the true one is there

    sys.modules.setdefault("sentencepiece", types.SimpleNamespace(SentencePieceProcessor=None))
    import conversion.base
    import convert_hf_to_gguf

    if pre:
        conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    sys.argv = ["convert_hf_to_gguf.py", *sys.argv[3:]]
    convert_hf_to_gguf.main()
