"""Vocabularies: tokens, types, merges, scores, and which pre-tokenizer it is."""

import json

import gguf
import pytest
from tests import tiny_models
from tests.surgery.gguf.models import write_sentencepiece_tokenizer
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from veche.core.errors import CheckpointError, InputError, UnsupportedError
from veche.surgery.gguf.pre_tokenizers import BY_HASH, NAMES, pre_tokenizer_of
from veche.surgery.gguf.vocabulary import read_vocabulary

SIZE = tiny_models.VOCAB_SIZE
TYPES = gguf.TokenType


@pytest.fixture
def folder(tmp_path):
    """A folder with the tiny byte-level tokenizer."""
    tiny_models.tiny_tokenizer(tmp_path)
    return tmp_path


@pytest.fixture
def pieces(tmp_path):
    """A folder with a tokenizer like Llama 2's."""
    write_sentencepiece_tokenizer(tmp_path)
    return tmp_path


def edit(folder, **changes):
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


class TestByteLevel:
    def test_tokens_types_and_merges_are_the_tokenizers(self, folder):
        found = read_vocabulary(folder, SIZE, pre="gpt-2")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert (found.model, found.pre) == ("gpt2", "gpt-2")
        count = tokenizer.get_vocab_size()
        assert list(found.tokens[:count]) == [tokenizer.id_to_token(i) for i in range(count)]
        assert set(found.types[:3]) == {TYPES.CONTROL}
        assert set(found.types[3:count]) == {TYPES.NORMAL}
        merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
        assert found.special.merges == [" ".join(pair) for pair in merges]
        assert found.special.special_token_ids == {"pad": 0, "bos": 1, "eos": 2}
        assert found.special.chat_template == tiny_models.CHAT_TEMPLATE
        assert found.scores == ()
        assert (found.adds_bos, found.adds_eos, found.adds_space) == (False, False, None)

    def test_rows_of_the_embedding_without_a_token_are_unused(self, folder):
        found = read_vocabulary(folder, SIZE + 100, pre="gpt-2")
        assert len(found.tokens) == len(found.types) == SIZE + 100
        assert found.tokens[-1] == f"[PAD{SIZE + 99}]"
        assert found.types[-1] == TYPES.UNUSED

    @pytest.mark.parametrize(
        ("text", "is_special", "kind"),
        [
            ("<|tool|>", False, TYPES.CONTROL),
            ("<think>", False, TYPES.USER_DEFINED),
            ("[X]", True, TYPES.CONTROL),
        ],
    )
    def test_added_tokens(self, folder, text, is_special, kind):
        path = str(folder / "tokenizer.json")
        tokenizer = Tokenizer.from_file(path)
        tokenizer.add_tokens([AddedToken(text, special=is_special)])
        tokenizer.save(path)
        found = read_vocabulary(folder, SIZE + 8, pre="gpt-2")
        index = tokenizer.token_to_id(text)
        assert (found.tokens[index], found.types[index]) == (text, kind)

    def test_a_tokenizer_that_begins_texts_with_its_bos_says_so(self, folder):
        template = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {
                "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}
            },
        }
        edit(folder, post_processor=template)
        found = read_vocabulary(folder, SIZE, pre="gpt-2")
        assert (found.adds_bos, found.adds_eos) == (True, False)


class TestSentencePiece:
    def test_tokens_and_types(self, pieces):
        found = read_vocabulary(pieces, 400, pre=None)
        assert (found.model, found.pre) == ("llama", "default")
        assert found.tokens[:4] == ("<unk>", "<s>", "</s>", "<0x00>")
        assert found.types[:3] == (TYPES.CONTROL,) * 3
        assert set(found.types[3:259]) == {TYPES.BYTE}
        assert found.adds_space is True
        assert found.num_unlisted_merges == 0

    def test_the_highest_score_is_that_of_the_first_merge(self, pieces):
        found = read_vocabulary(pieces, 400, pre=None)
        left, right = json.loads((pieces / "tokenizer.json").read_text())["model"]["merges"][0]
        normal = [i for i, kind in enumerate(found.types) if kind == TYPES.NORMAL]
        best = max(normal, key=lambda index: found.scores[index])
        assert found.tokens[best] == left + right
        assert found.scores[best] == 0.0

    def test_without_a_space_in_front(self, tmp_path):
        write_sentencepiece_tokenizer(tmp_path, prepends=False)
        assert read_vocabulary(tmp_path, 400, pre=None).adds_space is False

    @pytest.mark.parametrize(("scheme", "adds"), [("first", True), ("never", False)])
    def test_a_metaspace_step_says_whether(self, pieces, scheme, adds):
        step = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme}
        edit(pieces, normalizer=None, pre_tokenizer=step)
        assert read_vocabulary(pieces, 400, pre=None).adds_space is adds

    def test_merges_that_llama_cpp_would_make_and_the_tokenizer_not_are_counted(self, pieces):
        value = json.loads((pieces / "tokenizer.json").read_text())
        merges = value["model"]["merges"]
        results = ["".join(pair) for pair in merges]
        twice = next(i for i, text in enumerate(results) if results.count(text) > 1)
        del merges[twice]
        edit(pieces, model=value["model"])
        assert read_vocabulary(pieces, 400, pre=None).num_unlisted_merges == 1


class TestPreTokenizers:
    def test_llama_cpp_knows_every_name_of_the_table(self):
        assert set(BY_HASH.values()) <= NAMES

    def test_an_unknown_one_is_refused_with_what_to_type(self, folder):
        with pytest.raises(UnsupportedError, match=r"tokenizer\.json splits text") as caught:
            read_vocabulary(folder, SIZE, pre=None)
        assert "--pre qwen2" in caught.value.hint

    def test_a_hash_of_the_table_gives_its_name(self, monkeypatch):
        monkeypatch.setitem(BY_HASH, "0" * 64, "olmo")
        monkeypatch.setattr("veche.surgery.gguf.pre_tokenizers.fingerprint", lambda ids: "0" * 64)
        assert pre_tokenizer_of([1], where="here") == "olmo"

    def test_a_name_that_llama_cpp_does_not_know(self, folder):
        with pytest.raises(InputError, match="'qwen-2'") as caught:
            read_vocabulary(folder, SIZE, pre="qwen-2")
        assert "did you mean 'qwen2'" in caught.value.hint


class TestRefusals:
    def test_no_tokenizer(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"has no tokenizer\.json") as caught:
            read_vocabulary(tmp_path, SIZE, pre=None)
        assert "tokenizer_config.json" in caught.value.hint

    @pytest.mark.parametrize("content", ["{}", '{"model": 3}', "[1]", '{"version": "1.0", "model"'])
    def test_a_damaged_one(self, folder, content):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
            read_vocabulary(folder, SIZE, pre="gpt-2")

    def test_more_tokens_than_rows(self, folder):
        with pytest.raises(CheckpointError, match=r"a token of id 2\d\d, and vocab_size"):
            read_vocabulary(folder, 100, pre="gpt-2")

    def test_another_kind(self, folder):
        tokenizer = Tokenizer(models.WordLevel({"a": 0}))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        with pytest.raises(UnsupportedError, match="WordLevel"):
            read_vocabulary(folder, SIZE, pre="gpt-2")

    @pytest.mark.parametrize(
        "config",
        [{"bos_token": ["a"]}, {"post_processor": 3, "bos_token": {"content": 3}}],
        ids=str,
    )
    def test_odd_special_tokens_do_no_harm(self, folder, config):
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        assert read_vocabulary(folder, SIZE, pre="gpt-2").adds_bos is False
