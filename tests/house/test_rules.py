"""The house rules of CONTRIBUTING and the architecture, as far as a machine can check them."""

import ast
import json
import string
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import EntryPoint, distribution
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "veche"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text()) for file in FILES}

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
HEAVY = ("torch", "transformers", "peft", "matplotlib")
FRAMEWORKS = {"torch", "transformers", "peft"}
FRAMEWORK_FOLDERS = {"surgery", "engines", "experts", "roles"}
FRAMEWORK_FILES = {
    "engines/embedded/attention.py",
    "engines/embedded/branch_state.py",
    "engines/embedded/decoding.py",
    "engines/embedded/engine.py",
    "engines/embedded/experts_at_once.py",
    "engines/embedded/forward.py",
    "engines/embedded/head_statistics.py",
    "engines/embedded/kv_cache.py",
    "engines/embedded/loading.py",
    "engines/embedded/observations.py",
    "engines/embedded/packed_weights.py",
    "engines/embedded/reading.py",
    "engines/embedded/router_choice.py",
    "engines/embedded/router_control.py",
    "engines/embedded/sampling.py",
    "engines/embedded/snapshot.py",
    "experts/balance_loss.py",
    "experts/dial/adaptive.py",
    "experts/dial/bench.py",
    "experts/dial/measure.py",
    "roles/healing/distill.py",
    "roles/healing/heal.py",
    "roles/healing/kept.py",
    "roles/healing/layer_fit.py",
    "roles/healing/loop.py",
    "roles/healing/masks.py",
    "roles/healing/measure.py",
    "roles/healing/result.py",
    "roles/healing/self_written.py",
    "roles/healing/straight_through.py",
    "roles/healing/trainee.py",
    "roles/loft/calibration.py",
    "roles/loft/gradient_scaling.py",
    "roles/loft/groups.py",
    "roles/loft/optimizer.py",
    "roles/loft/pair_step.py",
    "roles/loft/pairs.py",
    "roles/loft/plain_adamw.py",
    "roles/loft/projected_adam.py",
    "roles/loft/symmetric_square.py",
    "roles/training/adapter.py",
    "roles/training/checkpoint.py",
    "roles/training/frozen_experts.py",
    "roles/training/learner.py",
    "roles/training/loop.py",
    "roles/training/optimizer.py",
    "roles/training/packed_attention.py",
    "roles/training/tensor_file.py",
    "roles/training/train.py",
    "surgery/carving/carve.py",
    "surgery/carving/check.py",
    "surgery/carving/fit.py",
    "surgery/carving/layer_fit.py",
    "surgery/carving/partition.py",
    "surgery/carving/refit.py",
    "surgery/carving/router_fit.py",
    "surgery/gguf/source.py",
    "surgery/loading.py",
    "surgery/verification/bench.py",
    "surgery/verification/compare.py",
    "surgery/verification/layerwise.py",
    "surgery/verification/predictions.py",
    "surgery/verification/proof.py",
    "surgery/verification/shell.py",
    "surgery/verification/verify.py",
    "surgery/verification/weights.py",
    "surgery/verification/whole.py",
}
"""Files that import torch, transformers or peft when they are imported. Kept exact."""
PHRASE_FILES = {
    "core/units.py",
    "cli/phrases.py",
    "cli/role_view.py",
    "council/prompts.py",
    "council/readout.py",
    "demo/phrases.py",
    "demo/report_phrases.py",
    "experts/layer_plots.py",
    "experts/phrases.py",
    "experts/disagreement_plot.py",
    "experts/head_plots.py",
    "experts/dial/phrases.py",
    "experts/plots.py",
    "experts/steering/phrases.py",
    "launch/phrases.py",
    "planning/phrases.py",
    "roles/evaluation/phrases.py",
    "roles/data/asking.py",
    "roles/healing/phrases.py",
    "roles/data/problems/arithmetic.py",
    "roles/data/problems/calendar.py",
    "roles/data/problems/dates.py",
    "roles/data/problems/lists.py",
    "roles/data/problems/measures.py",
    "roles/data/problems/phrases.py",
    "roles/data/problems/puzzle.py",
    "roles/data/problems/syllogisms.py",
    "roles/data/problems/units.py",
    "roles/reporter/reading.py",
    "roles/training/phrases.py",
}
"""Files that speak to people; another one is found by itself, and one that is lost is missed."""

every_file = pytest.mark.parametrize("file", TREES)


# --- what a light command loads -------------------------------------------------------------------

_IMPORT = "import veche"
_COMMAND = """
import sys
from veche.cli.main import main
code = main({arguments!r})
assert code == 0, code
"""
_REPORT = """
import sys
print("\\nLOADED", *sorted({heavy!r} & set(sys.modules)))
"""


def _loaded_by(program: str) -> str:
    report = _REPORT.format(heavy=set(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", program + report], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("LOADED")[2].strip()


def test_importing_veche_loads_no_framework():
    assert _loaded_by(_IMPORT) == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", "agi", "--json"], ["launch", "agi", "--json"]]
)
def test_a_command_that_needs_no_framework_loads_none(arguments):
    assert _loaded_by(_COMMAND.format(arguments=arguments)) == ""


def test_the_check_of_loaded_modules_notices_one():
    assert _loaded_by("import matplotlib") == "matplotlib"


def _imported_at_once(tree: ast.Module) -> Iterator[str]:
    """Yield what importing the module imports: not in functions, not for type checkers."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += list(ast.iter_child_nodes(node))


def test_frameworks_are_imported_at_module_level_in_the_listed_files_only():
    found = {
        name
        for name, tree in TREES.items()
        if FRAMEWORKS & {module.split(".")[0] for module in _imported_at_once(tree)}
    }
    assert found == FRAMEWORK_FILES
    assert {name.split("/")[0] for name in found} <= FRAMEWORK_FOLDERS


# --- plugins --------------------------------------------------------------------------------------

ENTRY_POINTS = [
    point
    for point in distribution("veche").entry_points
    if point.group in ("veche.engines", "veche.operations", "veche.roles")
]


@pytest.mark.parametrize("point", ENTRY_POINTS, ids=lambda point: f"{point.group}:{point.name}")
def test_every_entry_point_loads(point: EntryPoint):
    assert point.load() is not None


def test_the_installed_entry_points_are_those_of_pyproject():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    installed: dict[str, dict[str, str]] = {group: {} for group in declared}
    for point in distribution("veche").entry_points:
        if point.group.startswith("veche."):
            installed.setdefault(point.group, {})[point.name] = point.value
    assert installed == declared, "install again: pip install --no-deps --editable ."


# --- shape of the code ----------------------------------------------------------------------------

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _public(tree: ast.Module, name: str) -> Iterator[tuple[str, Documented]]:
    """Yield the module and every public class, function and method that is not in a function."""
    waiting: list[tuple[str, Documented]] = [(name, tree)]
    while waiting:
        where, node = waiting.pop()
        yield where, node
        if isinstance(node, ast.Module | ast.ClassDef):
            waiting += [
                (f"{where}:{child.name}", child)
                for child in node.body
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and not child.name.startswith("_")
            ]


@every_file
def test_everything_public_is_documented(file):
    silent = [where for where, node in _public(TREES[file], file) if not ast.get_docstring(node)]
    assert silent == []


@every_file
def test_no_module_and_no_function_is_too_long(file):
    assert len((PACKAGE / file).read_text().splitlines()) <= MAX_MODULE_LINES
    lengths = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def _names(node: ast.expr | None) -> set[str]:
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name)} if node else set()


def _hides_errors(handler: ast.ExceptHandler) -> bool:
    caught = _names(handler.type)
    reraises = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
    does_nothing = all(
        isinstance(item, ast.Pass)
        or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
        for item in handler.body
    )
    is_broad = handler.type is None or "Exception" in caught
    return does_nothing or is_broad or ("BaseException" in caught and not reraises)


@every_file
def test_no_handler_hides_errors(file):
    nodes = list(ast.walk(TREES[file]))
    lines = [
        node.lineno for node in nodes if isinstance(node, ast.ExceptHandler) and _hides_errors(node)
    ]
    lines += [
        node.lineno
        for node in nodes
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("suppress")
        and {"Exception", "BaseException"} & {name for arg in node.args for name in _names(arg)}
    ]
    assert lines == []


def test_the_check_of_handlers_knows_good_from_bad():
    def hides(handler: str) -> bool:
        tree = ast.parse(f"try:\n    f()\n{handler}")
        return any(_hides_errors(n) for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler))

    assert hides("except Exception:\n    g()")
    assert hides("except:\n    raise")
    assert hides("except (ValueError, Exception) as e:\n    g(e)")
    assert hides("except OSError:\n    pass")
    assert hides("except OSError:\n    ...")
    assert hides("except BaseException:\n    g()")
    assert not hides("except BaseException:\n    g()\n    raise")
    assert not hides("except (OSError, ValueError):\n    return_value = None")


def test_no_file_or_folder_has_a_name_that_says_nothing():
    found = [
        path.relative_to(ROOT).as_posix()
        for top in (PACKAGE, ROOT / "tests", ROOT / "benchmarks")
        for path in top.rglob("*")
        if path.stem.strip("_").lower() in VAGUE_NAMES
    ]
    assert found == []


# --- both languages -------------------------------------------------------------------------------


def _tables(tree: ast.Module) -> Iterator[tuple[int, dict[str, ast.expr]]]:
    """Yield the line and content of every dict that has a language for a key."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if {"en", "ru"} & set(keys):
                yield node.lineno, dict(zip(keys, node.values, strict=True))


def _placeholders(text: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}


def _strings(node: ast.expr) -> list[str]:
    return [
        item.value
        for item in ast.walk(node)
        if isinstance(item, ast.Constant) and isinstance(item.value, str)
    ]


SPEAKING = {name for name, tree in TREES.items() if any(_tables(tree))}


def test_the_files_that_speak_are_known():
    assert SPEAKING == PHRASE_FILES


@pytest.mark.parametrize("file", sorted(SPEAKING))
def test_every_phrase_has_both_languages_with_the_same_placeholders(file):
    for line, words in _tables(TREES[file]):
        where = f"{file}:{line}"
        assert set(words) == {"en", "ru"}, where
        if all(isinstance(value, ast.Constant) for value in words.values()):
            english, russian = (words[key].value for key in ("en", "ru"))
            assert isinstance(english, str), where
            assert isinstance(russian, str), where
            assert bool(english.strip()) == bool(russian.strip()), where
            assert _placeholders(english) == _placeholders(russian), where
        else:
            counts = {key: len(_strings(value)) for key, value in words.items()}
            assert counts["en"] == counts["ru"], f"{where}: {counts}"


@pytest.mark.parametrize("recipe", sorted((PACKAGE / "planning/recipes").glob("*.yaml")))
def test_every_shipped_recipe_is_described_in_both_languages(recipe):
    assert set(yaml.safe_load(recipe.read_text())["description"]) == {"en", "ru"}


# --- data -----------------------------------------------------------------------------------------

DATA = (
    "py.typed",
    "demo/report.html.j2",
    "experts/report.html.j2",
    "launch/gpus.json",
    "planning/bases/qwen3-30b-a3b-16-experts-128k.json",
    "planning/field_facts.json",
    "planning/recipes/agi-fits.yaml",
    "planning/bases/smollm2-135m-carved.json",
    "planning/recipes/agi.yaml",
    "planning/recipes/demo.yaml",
    "roles/shipped/logician.yaml",
    "roles/shipped/objector.yaml",
    "roles/shipped/proposer.yaml",
    "roles/shipped/q-intent.yaml",
    "roles/shipped/recursia.yaml",
    "roles/shipped/synthesiser.yaml",
)


@pytest.mark.parametrize("name", DATA)
def test_the_package_brings_its_data(name):
    file = resources.files("veche") / name
    assert file.is_file()
    if name.endswith(".json"):
        assert json.loads(file.read_text(encoding="utf-8"))
    elif name != "py.typed":
        assert file.read_text(encoding="utf-8").strip()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_file_of_the_package_is_ignored_by_git():
    """Hatchling leaves files that git ignores out of the wheel."""
    files = [
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"],
        input="\n".join(files), cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout == ""
