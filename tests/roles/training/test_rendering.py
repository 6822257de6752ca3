"""What is learnt, token by token: against the chat template itself, in both alphabets."""

from dataclasses import replace

import pytest
from tests.roles.training.dialogues import ROLE, dialogue, sums
from tiny_models import tiny_tokenizer
from transformers import AutoTokenizer

from veche.core.errors import InputError
from veche.engines.chat_format import chat_format
from veche.roles.speaker import instruction_for
from veche.roles.training.rendering import Renderer, with_invocation

END = 2  # <|im_end|> of the tiny tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    tiny_tokenizer(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


@pytest.fixture
def renderer(tokenizer):
    return Renderer(chat_format(tokenizer), ROLE, end_ids=frozenset({END}), acts_everywhere=False)


EXAMPLES = {
    "english": dialogue("what is 2 + 2?", "it is four."),
    "russian": dialogue("сколько 2 + 2?", "это четыре.", language="ru"),
    "several turns": dialogue("first?", "one.", "второй?", "два.", "third?", "three.", system="s"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_tokens_are_those_of_the_chat_template(name, renderer, tokenizer):
    example = EXAMPLES[name]
    done = renderer.tokenised(example, where="here")
    *before, question, answer = [{"role": m.role, "content": m.content} for m in example.messages]
    if before[:1] != [{"role": "system", "content": "s"}]:
        before.insert(0, {"role": "system", "content": ""})
    question["content"] += instruction_for(ROLE, ROLE.prompt[example.language or "en"])
    text = tokenizer.apply_chat_template([*before, question, answer], tokenize=False)
    ids = [*done.prefix_ids, *done.suffix_ids]
    assert tokenizer.decode(ids) == text.removesuffix("\n")


@pytest.mark.parametrize("system", ["", "s"])
def test_a_plain_text_answers_the_roles_prompt_alone(renderer, tokenizer, system):
    text = "Абзац, которого никто не спрашивал."
    example = dialogue("", text, system=system)
    plain = replace(example, messages=tuple(m for m in example.messages if m.role != "user"))
    done = renderer.tokenised(plain, where="here")
    assert done == renderer.tokenised(example, where="here")
    learnt = done.suffix_ids[-done.num_loss : -1]
    assert tokenizer.decode(learnt) == text


@pytest.mark.parametrize("name", EXAMPLES)
def test_loss_is_borne_by_the_last_answer_and_the_token_that_ends_it_alone(
    name, renderer, tokenizer
):
    example = EXAMPLES[name]
    done = renderer.tokenised(example, where="here")
    answer = example.messages[-1].content
    learnt = done.suffix_ids[-done.num_loss :]
    assert tokenizer.decode(learnt[:-1]) == answer
    assert learnt[-1] == END
    assert list(learnt[:-1]) == tokenizer(answer, add_special_tokens=False).input_ids
    asked = tokenizer.decode(done.suffix_ids[: -done.num_loss])
    assert asked == instruction_for(ROLE, ROLE.prompt[example.language or "en"]) + (
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(done.prefix_ids).endswith(example.messages[-2].content)


def test_markup_in_a_text_is_text(renderer):
    done = renderer.tokenised(dialogue("q <|im_end|>", "a <|im_end|> b"), where="here")
    assert done.suffix_ids.count(END) == 2  # the question's end, and the answer's
    assert END not in done.prefix_ids[-12:]
    assert done.suffix_ids[-done.num_loss : -1].count(END) == 0


def test_an_adapter_that_acts_everywhere_has_no_prefix(tokenizer):
    chat = chat_format(tokenizer)
    for example in EXAMPLES.values():
        some, all_of_it = (
            Renderer(chat, ROLE, end_ids=frozenset({END}), acts_everywhere=everywhere).tokenised(
                example, where="here"
            )
            for everywhere in (False, True)
        )
        assert all_of_it.prefix_ids == ()
        assert all_of_it.suffix_ids == some.prefix_ids + some.suffix_ids
        assert all_of_it.num_loss == some.num_loss


def test_a_model_without_a_template_ends_answers_too(tmp_path):
    tiny_tokenizer(tmp_path, chat_template=None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    renderer = Renderer(
        chat_format(tokenizer), ROLE, end_ids=frozenset({END}), acts_everywhere=False
    )
    done = renderer.tokenised(dialogue("two?", "2"), where="here")
    assert done.suffix_ids[-1] == END


def test_too_long_examples_are_left_out_and_counted(renderer):
    found = renderer.all_of(
        [dialogue("q", "a"), dialogue("q", "long " * 200), dialogue("q", "b")], max_length=120
    )
    assert (len(found.examples), found.num_too_long) == (2, 1)
    assert found.longest > 120
    with pytest.raises(InputError, match="all 1 examples have more than 120 tokens"):
        renderer.all_of([dialogue("q", "long " * 200)], max_length=120)


BAD = {
    "no assistant": (dialogue("q"), "example 1 has no assistant's turn"),
    "ends with a question": (dialogue("q", "a", "q"), "ends with the user's turn"),
    "no turn": (dialogue(), "no assistant's turn"),
    "an empty answer": (dialogue("q", " \n"), "empty answer"),
    "an answer first": (
        dialogue("q", "a").__class__(
            messages=dialogue("q", "a").messages[::-1], group="g", task="t"
        ),
        "turn 1 is the assistant's, where the user's is due",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_dialogue_is_refused_by_name(name, renderer):
    example, message = BAD[name]
    with pytest.raises(InputError, match=message):
        renderer.all_of([example], max_length=100)


def test_nothing_to_learn_from_is_refused(renderer):
    with pytest.raises(InputError, match="no example"):
        renderer.all_of([], max_length=100)


def test_an_invocation_that_would_not_be_found_is_refused(tokenizer):
    chat = chat_format(tokenizer)

    def rendered(invocation, prompt):
        role = replace(ROLE, invocation=invocation, prompt={"en": prompt, "ru": prompt})
        Renderer(chat, role, end_ids=frozenset({END}), acts_everywhere=False).tokenised(
            sums(1)[0], where="here"
        )

    with pytest.raises(InputError, match="becomes other tokens"):
        rendered("the coun", "cil hears")  # "the council" has tokens of its own
    with pytest.raises(InputError, match="stands in its prompt once more"):
        rendered("\n[x]\n", "Say\n[x]\nnow")


def test_a_role_without_an_invocation_gets_its_name():
    assert with_invocation(ROLE) is ROLE
    assert with_invocation(replace(ROLE, invocation="")).invocation == "\n\n[adder]\n"
