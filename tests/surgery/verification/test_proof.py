"""The table that `veche operations --prove` prints, and that it can fail."""

from tiny_models import tiny_mixtral

from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.loading import load_model
from veche.surgery.verification import proof
from veche.surgery.verification.compare import Comparison


def test_every_operation_is_exact_in_every_family_and_mode():
    proofs = list(proof.prove())
    assert [each for each in proofs if not each.passed] == []
    refused = [each for each in proofs if each.refusal]
    assert {each.family for each in refused} == {"olmoe"}
    assert all("heads" in each.operation for each in refused)
    assert {each.family for each in proofs} == set(proof.SOURCES)
    measured = [each for each in proofs if not each.refusal]
    assert len(measured) >= 90
    # What is compared is two models, not one with itself: rounding shows somewhere.
    assert max(each.max_abs_logit_diff for each in measured) > 1e-7


def test_experts_with_their_old_top_k_are_not_exact(tmp_path):
    """The bar is not so low that the classic mistake would pass: m × experts with k kept."""
    import torch

    source = tiny_mixtral(tmp_path / "source")
    fields = {"num_experts": 16, "num_experts_per_tok": 3}
    plan = make_plan(Recipe(name="t", base=str(source), fields=fields, allow_lossy=True))
    build(plan, source, tmp_path / "out")
    tokens = torch.arange(3, 131)
    result = Comparison()
    with torch.inference_mode():
        logits = [
            load_model(folder)(input_ids=tokens[None]).logits[0]
            for folder in (source, tmp_path / "out")
        ]
    result.add(*logits, tokens)
    assert result.max_abs_diff > 1e-2 * result.scale


def test_a_tiny_model_hides_no_mistake_behind_ones_and_zeros(tmp_path):
    proof.write_tiny_model(tmp_path / "m", "qwen2_moe")
    model = load_model(tmp_path / "m")
    for name, weight in model.named_parameters():
        assert weight.std() > 0.05, name
