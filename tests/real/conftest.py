"""The demo's real model, converted, carved and grown once for all tests that look at it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from veche.planning.plan import BuildPlan
from veche.surgery.carving.carve import CarveReport


@dataclass(frozen=True)
class RealModel:
    """What the chain's first stages made, and said."""

    source: Path
    carved: Path
    grown: Path
    plan: BuildPlan
    carving: CarveReport


@pytest.fixture(scope="session")
def real_model(tmp_path_factory) -> RealModel:
    """Take SmolLM2-135M through source, carve, plan and build, with little calibration."""
    pytest.importorskip("gguf", reason="pip install 'veche[demo]'")
    from veche.core.errors import InputError
    from veche.demo.source import weights_file
    from veche.planning.planner import make_plan
    from veche.planning.recipe import load_recipe, with_choices
    from veche.surgery.build import build
    from veche.surgery.carving.carve import CarveSettings, carve
    from veche.surgery.gguf.source import convert_gguf

    try:
        weights = weights_file()
    except InputError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    folder = tmp_path_factory.mktemp("real")
    convert_gguf(
        weights,
        folder / "source",
        license_id="apache-2.0",
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
    carving = carve(
        folder / "source",
        folder / "carved",
        CarveSettings(num_experts=16, calibration_tokens=2048, check_tokens=64),
    )
    plan = make_plan(with_choices(load_recipe("demo"), {"base": str(folder / "carved")}))
    build(plan, folder / "carved", folder / "grown")
    return RealModel(
        source=folder / "source",
        carved=folder / "carved",
        grown=folder / "grown",
        plan=plan,
        carving=carving,
    )
