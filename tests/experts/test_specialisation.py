"""A planted specialist is found, dependence alone is not, and counts are slow counts."""

from dataclasses import replace

import numpy as np
import pytest
from tests.experts.routings import document, halves, labelled, random_routing

from veche.experts.recording import joined
from veche.experts.specialisation import counted, specialisation
from veche.experts.token_classes import CLASSES

FEW = {"num_permutations": 1999}


def axis_of(recording, name, only=None):
    axes = specialisation(recording, **FEW)
    return {(axis.name, axis.only): axis for axis in axes}[name, only]


def test_counts_of_documents_and_groups_equal_a_slow_count():
    recording = joined([labelled(range(3)), labelled(range(2))])
    rng = np.random.default_rng(0)
    groups = rng.integers(-1, 2, recording.num_tokens)
    counts, tokens = counted(recording, groups, 2)
    slow = np.zeros((2, 3, 3, 8), int)
    names = ["d0", "d1", "d2"]
    slow_tokens = np.zeros((2, 3), int)
    starts = recording.starts
    for record, start, end in zip(recording.records, starts, starts[1:], strict=False):
        for token in range(start, end):
            if groups[token] >= 0:
                cell = groups[token], names.index(record.document)
                slow_tokens[cell] += 1
                for layer, chosen in enumerate(recording.expert_ids[token]):
                    for expert in chosen:
                        slow[cell][layer, expert] += 1
    assert counts.tolist() == slow.reshape(2, 3, 24).tolist()
    assert tokens.tolist() == slow_tokens.tolist()


def test_a_planted_specialist_is_found_and_no_other():
    recording = labelled(range(24), favours=(1, 5, 1.5), tokens=60)
    axis = axis_of(recording, "domain")
    (group,) = axis.groups
    assert (group.value, group.against) == ("code", "prose")
    assert group.found.design == "between documents"
    found = np.argwhere(group.adjusted <= 0.05).tolist()
    # A favoured expert takes its tokens from the others of its layer.
    assert [1, 5] in found
    assert all(layer == 1 for layer, _ in found)
    change = (group.found.rate - group.found.rest).reshape(3, 8)
    assert np.unravel_index(change.argmax(), change.shape) == (1, 5)
    is_code = np.repeat([number % 2 == 0 for number in range(24)], 60)
    has = (recording.expert_ids[:, 1] == 5).any(-1)
    assert change[1, 5] == pytest.approx(has[is_code].mean() - has[~is_code].mean())


def test_documents_that_each_favour_an_expert_of_their_own_are_no_specialists():
    """Within a document routing is far from random; the labels have nothing to do with it."""
    recording = joined(
        document(
            f"d{n}", random_routing(tokens=80, seed=n, favours=(0, n % 8, 3.0)),
            domain="code" if n < 6 else "prose",
        )
        for n in range(12)
    )  # fmt: skip
    assert axis_of(recording, "domain").groups[0].num_significant == 0


def test_kinds_of_tokens_are_compared_within_documents():
    plain = labelled(range(12), tokens=80)
    latin, digits = CLASSES.index("latin"), CLASSES.index("digits")
    recording = halves(plain, (latin, digits))
    ids = recording.expert_ids.copy()
    ids[1::2, 2] = [6, 7]
    axis = axis_of(replace(recording, expert_ids=ids), "token class")
    (group,) = axis.groups
    assert group.found.design == "within documents"
    assert (group.value, group.against) == ("latin", "digits")
    assert {(2, 6), (2, 7)} <= {tuple(cell) for cell in np.argwhere(group.adjusted <= 0.05)}


def test_voices_of_one_run_cannot_be_told_apart_by_chance_alone():
    parts = [
        document("run", random_routing(seed=n, favours=(0, n, 9.0)), voice=f"v{n}")
        for n in range(3)
    ]
    axis = axis_of(joined(parts), "voice")
    assert axis.smallest_p == 1
    assert axis.needed_together > axis.num_tests
    assert all(group.num_significant == 0 for group in axis.groups)
    assert [group.against for group in axis.groups] == ["the rest"] * 3


def test_a_label_with_one_value_or_with_a_name_for_each_document_is_no_axis():
    recording = labelled(range(30), values=("code", "code"))
    named = replace(
        recording,
        records=tuple(
            replace(record, labels={**record.labels, "author": record.document})
            for record in recording.records
        ),
    )
    assert specialisation(named, **FEW) == ()


def test_a_label_that_only_changes_the_mix_of_token_classes_is_seen_through():
    """Expert 6 of layer 2 takes digits, code or not; code has more digits."""
    plain = labelled(range(24), tokens=80)
    rng = np.random.default_rng(0)
    is_code = np.repeat([number % 2 == 0 for number in range(24)], 80)
    is_digit = rng.random(plain.num_tokens) < np.where(is_code, 0.4, 0.1)
    ids = plain.expert_ids.copy()
    ids[is_digit, 2] = [6, 7]
    classes = np.where(is_digit, CLASSES.index("digits"), CLASSES.index("latin"))
    recording = replace(plain, expert_ids=ids, token_classes=classes.astype(np.uint8))
    (mixed,) = axis_of(recording, "domain").groups
    (alike,) = axis_of(recording, "domain", only="latin").groups
    assert mixed.adjusted[2, 6] <= 0.05
    assert alike.num_tokens == (is_code & ~is_digit).sum()
    assert alike.num_significant == 0
