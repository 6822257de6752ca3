"""A split never parts a problem."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import InputError
from veche.roles.data.example import Example, Message
from veche.roles.data.split import split_by_group


def example(group, text):
    return Example(messages=(Message(role="user", content=text),), group=group, task="t")


examples = st.lists(
    st.builds(
        example,
        st.integers(0, 12).map("g{}".format),
        st.integers(0, 20).map(lambda n: ["Q{}", " q{} ", "ｑ{}"][n % 3].format(n // 3)),
    ),
    min_size=1,
    max_size=60,
)
shares = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(
    lambda parts: [part / sum(parts) for part in parts]
)


def plain(text):
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


@given(examples=examples, shares=shares, seed=st.integers(0, 9))
def test_parts_share_no_group_and_no_question_and_lose_nothing(examples, shares, seed):
    try:
        parts = split_by_group(examples, shares, seed=seed)
    except InputError:
        linked = {}  # fewer problems than parts: count them the slow way
        for item in examples:
            linked[item.group] = linked.get(item.group, {item.group}) | {
                other.group
                for other in examples
                if plain(other.messages[0].content) == plain(item.messages[0].content)
            }
        for _ in linked:
            linked = {g: {h for o in found for h in linked[o]} for g, found in linked.items()}
        assert len({frozenset(found) for found in linked.values()}) < len(shares)
        return
    assert sorted(map(id, (e for part in parts for e in part))) == sorted(map(id, examples))
    for one in range(len(parts)):
        for other in range(one):
            for key in (lambda e: e.group, lambda e: plain(e.messages[0].content)):
                assert not {key(e) for e in parts[one]} & {key(e) for e in parts[other]}
    assert all(parts)


@given(examples=examples, seed=st.integers(0, 9), data=st.data())
def test_the_order_of_the_examples_does_not_matter(examples, seed, data):
    mixed = data.draw(st.permutations(examples))
    try:
        one, other = (split_by_group(given_, [0.7, 0.3], seed=seed) for given_ in (examples, mixed))
    except InputError:
        return
    for part, same in zip(one, other, strict=True):
        assert sorted(map(id, part)) == sorted(map(id, same))


def test_parts_are_as_large_as_their_shares_and_seeds_differ():
    many = [example(f"g{n}", f"question {n}") for n in range(1000)]
    parts = split_by_group(many, [0.8, 0.15, 0.05], seed=0)
    assert [len(part) for part in parts] == [800, 150, 50]
    assert parts != split_by_group(many, [0.8, 0.15, 0.05], seed=1)


def test_the_same_question_behind_another_system_message_stays_with_it():
    def asked(group, system):
        messages = (Message(role="system", content=system), Message(role="user", content="Why?"))
        return Example(messages=messages, group=group, task="t")

    pair = [asked("a", "Be brief."), asked("b", "Be kind."), example("c", "How?")]
    parts = split_by_group(pair, [0.5, 0.5], seed=0)
    assert sorted(len(part) for part in parts) == [1, 2]


def test_shares_that_are_none_are_the_programmers_fault():
    for wrong in ([], [0.5], [1.5, -0.5]):
        with pytest.raises(ValueError, match="shares"):
            split_by_group([example("a", "b")], wrong, seed=0)
