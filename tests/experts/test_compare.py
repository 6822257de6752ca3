"""Two recordings: what is equal is equal, what was planted is found, what cannot be is refused."""

from dataclasses import replace

import numpy as np
import pytest
from tests.experts.routings import document, labelled, random_routing

from veche.core.errors import InputError
from veche.experts.compare import compare
from veche.experts.recording import joined

FEW = {"num_permutations": 1999}


def test_a_recording_compared_with_itself_shows_no_difference():
    recording = labelled(range(8))
    found = compare(recording, recording, **FEW)
    assert found.js == pytest.approx(0)
    assert found.saturation == pytest.approx(1)
    assert found.num_same_tokens == recording.num_tokens
    assert found.experts.design == "within documents"
    assert (found.adjusted == 1).all()
    assert (found.js_p == 1).all()


def test_a_changed_router_is_found_in_its_layer():
    """The same texts before and after: in layer 2 every token now goes to experts 0 and 1."""
    before = labelled(range(12), tokens=40)
    ids = before.expert_ids.copy()
    ids[:, 2] = [0, 1]
    found = compare(before, replace(before, expert_ids=ids), **FEW)
    assert found.saturation[:2] == pytest.approx(1)
    assert found.saturation[2] == pytest.approx(2 / 8, abs=0.05)
    assert np.flatnonzero(found.js_p <= 0.05).tolist() == [2]
    assert found.js[:2] == pytest.approx(0)
    changed = np.argwhere(found.adjusted <= 0.05)
    assert set(changed[:, 0]) == {2}
    assert {0, 1} <= set(changed[:, 1])


def test_noise_between_other_texts_is_near_its_null_and_not_significant():
    first = labelled(range(10), tokens=50)
    second = joined(document(f"e{n}", random_routing(tokens=50, seed=90 + n)) for n in range(10))
    found = compare(first, second, **FEW)
    assert found.experts.design == "between documents"
    assert found.saturation is None
    assert (found.js > 0).all()
    assert found.js == pytest.approx(found.null_js, rel=1)
    assert (found.js_p > 0.05).all()
    assert (found.adjusted > 0.05).all()
    assert found.overlap == pytest.approx(2 / 8, abs=0.02)


def test_the_null_of_js_equals_the_mean_over_all_swaps():
    first = joined(document(f"d{n}", random_routing(seed=n, layers=1)) for n in range(3))
    second = joined(document(f"d{n}", random_routing(seed=9 + n, layers=1)) for n in range(3))
    found = compare(first, second, **FEW)
    ours, theirs = first.expert_ids.reshape(3, -1), second.expert_ids.reshape(3, -1)

    def divergence(swaps):
        sides = [[], []]
        for number, swap in enumerate(swaps):
            sides[swap].append(ours[number])
            sides[1 - swap].append(theirs[number])
        p, q = (np.bincount(np.concatenate(side), minlength=8) / 120 for side in sides)
        m = (p + q) / 2
        kl = [np.sum(x[x > 0] * np.log2((x / m)[x > 0])) for x in (p, q)]
        return sum(kl) / 2

    swaps = [divergence(s) for s in np.ndindex(2, 2, 2)]
    assert found.js[0] == pytest.approx(swaps[0])
    assert found.null_js[0] == pytest.approx(np.mean(swaps), rel=0.1)


def test_a_model_with_another_top_k_can_be_compared_and_has_no_saturation():
    first, second = labelled(range(6)), labelled(range(6), top_k=4)
    found = compare(first, second, **FEW)
    assert found.saturation is None
    assert found.experts.rate.sum() == pytest.approx(3 * 4)
    assert found.experts.rest.sum() == pytest.approx(3 * 2)


def test_other_shapes_and_silence_are_refused():
    with pytest.raises(InputError, match="8 and 16 experts"):
        compare(labelled(range(2)), labelled(range(2), experts=16))
    with pytest.raises(InputError, match="no tokens"):
        compare(labelled(range(2)), document("s", random_routing(tokens=0)))
