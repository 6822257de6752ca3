"""Write a plan where its owner wants it: the config.json of the result, and pages to read."""

from pathlib import Path

from veche.core.errors import OutputError, VecheError
from veche.core.files import read_json_object, write_json, write_together
from veche.core.json_text import json_text
from veche.core.language import Language
from veche.planning.html_page import plan_html
from veche.planning.markdown_page import plan_markdown
from veche.planning.plan import BuildPlan

NAMES = ("config.json", "plan.json", "plan.md", "plan.html")


def write_plan(plan: BuildPlan, path: Path, language: Language) -> list[Path]:
    """Write `plan` to a .json file, or all of `NAMES` into a folder; return what was written.

    Raises:
        RecipeError: a folder is asked for, and the plan is not decided: it has no config.json yet.
        OutputError: something else than an earlier plan is there.
    """
    if path.suffix == ".json":
        _require_own(path)
        write_json(path, plan.as_dict())
        return [path]
    plan.require_buildable()
    _require_plan_folder(path)
    texts = {
        "config.json": json_text(plan.target_config),
        "plan.json": json_text(plan.as_dict()),
        "plan.md": plan_markdown(plan, language),
        "plan.html": plan_html(plan, language),
    }
    write_together({path / name: text for name, text in texts.items()})
    return [path / name for name in NAMES]


def _require_plan_folder(folder: Path) -> None:
    """Refuse a folder that holds anything that is not of an earlier plan, such as a model."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file", hint="give a folder, or a name that ends in .json")
    strange = sorted(entry.name for entry in folder.iterdir() if entry.name not in NAMES)
    has_plan = (folder / "plan.json").is_file()
    if strange or (any(folder.iterdir()) and not has_plan):
        found = strange[0] if strange else "config.json"
        raise OutputError(
            f"{folder} holds {found}, which is not of a plan: veche does not write beside it",
            hint="choose another folder with --out",
        )
    if has_plan:
        _require_own(folder / "plan.json")


def _require_own(file: Path) -> None:
    """Refuse to replace a file that is not a plan."""
    if not file.exists():
        return
    try:
        is_plan = {"schema", "recipe", "target_config"} <= read_json_object(file).keys()
    except VecheError:
        is_plan = False
    if not is_plan:
        raise OutputError(
            f"{file} exists and is not a plan: veche overwrites only plans",
            hint="choose another name with --out",
        )
