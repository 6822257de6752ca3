"""A recipe: what somebody wants a model to become, as YAML."""

import difflib
import re
from collections.abc import Mapping
from fractions import Fraction
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from veche.core.errors import RecipeError
from veche.core.language import Language
from veche.planning.field_facts import known_fields
from veche.planning.fields import ALIASES, FIELDS, checked_key
from veche.planning.plan import Mode
from veche.planning.yaml_text import MAX_BYTES, read_yaml

RopeLength = Literal["extend", "keep-length", "as-written"]


class FieldWish(BaseModel):
    """What a recipe wants of one field.

    Attributes:
        value: the value, or a factor of the base's value, as in "x1.5" or "x4/3".
        reason: what is hoped for, as one text or by language.
        apply: False plans and measures it without carrying it out.
        instead_of: what was asked for first, where the recipe departs from it; `reason` says why.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Any
    reason: str | dict[Literal["en", "ru"], str] = ""
    apply: bool = True
    instead_of: Any = None

    def reason_in(self, language: Language) -> str:
        """Return the reason in `language`, or in the one that the recipe has."""
        if isinstance(self.reason, str):
            return self.reason
        return self.reason.get(language) or next(iter(self.reason.values()), "")


class Recipe(BaseModel):
    """A recipe file, checked.

    Attributes:
        name: how it is called.
        description: one sentence for people, by language.
        base: a shipped base, a checkpoint folder or a config.json.
        mode: how new units start.
        seed: of every random number.
        allow_lossy: agreement to changes that alter answers.
        rope_length: the choice where a rope factor contradicts max_position_embeddings.
        tensor_parallel: how many cards must be able to share the result.
        fields: what to change.
        operations: of other packages, to be carried out after those that the fields need.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: dict[Literal["en", "ru"], str] = Field(default_factory=dict)
    base: str
    mode: Mode = "zero"
    seed: int = Field(0, ge=0, lt=2**63)
    allow_lossy: bool = False
    rope_length: RopeLength | None = None
    tensor_parallel: int = Field(1, ge=1, le=1024)
    fields: dict[str, FieldWish] = Field(default_factory=dict)
    operations: tuple[str, ...] = ()

    @field_validator("fields", mode="before")
    @classmethod
    def _wrap_plain_values(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        wrapped = {
            name: wish
            if isinstance(wish, FieldWish) or (isinstance(wish, dict) and "value" in wish)
            else {"value": wish}
            for name, wish in value.items()
        }
        return _in_one_spelling(wrapped)


def _in_one_spelling(wishes: dict[Any, Any]) -> dict[Any, Any]:
    """Return wishes under ModelSpec's names: `dtype`, `rope_parameters` are transformers 5's.

    Raises:
        ValueError: two spellings of one field stand side by side.
    """
    result: dict[Any, Any] = {}
    for name, wish in wishes.items():
        for key, part in _spelt(name, wish).items():
            if key in result:
                raise ValueError(f"{name} and {key} say the same field twice")
            result[key] = part
    return result


def _spelt(name: Any, wish: Any) -> dict[Any, Any]:
    rope = wish.value if isinstance(wish, FieldWish) else wish["value"]
    if name != "rope_parameters" or not isinstance(rope, dict):
        return {ALIASES.get(name, name) if isinstance(name, str) else name: wish}
    rest = wish.model_dump() if isinstance(wish, FieldWish) else wish
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    parts = {"rope_scaling": {**rest, "value": scaling or None}}
    if "rope_theta" in rope:
        parts["rope_theta"] = {**rest, "value": rope["rope_theta"]}
    return parts


def with_choices(recipe: Recipe, choices: Mapping[str, Any]) -> Recipe:
    """Return the recipe as the command line changes it.

    Args:
        recipe: as loaded.
        choices: any of base, mode, seed, allow_lossy, rope_length, tensor_parallel, fields
            as a list of "name=value", and unset as a list of names; None leaves what the
            recipe says.

    Raises:
        RecipeError: a field is unknown, or a choice is not one of those that there are.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    wishes = dict(_parse_assignment(text) for text in given.pop("fields", ()))
    dropped = set(given.pop("unset", ()))
    if absent := dropped - set(recipe.fields):
        raise RecipeError(
            f"--unset: the recipe has no field {min(absent)!r}",
            hint=f"it has: {', '.join(recipe.fields)}",
        )
    _refuse_unknown_fields(wishes, "--set")
    try:
        wishes = _in_one_spelling(wishes)
        kept = {name: wish for name, wish in recipe.fields.items() if name not in dropped}
        merged = {**recipe.model_dump(), **given, "fields": {**kept, **wishes}}
        return Recipe.model_validate(merged)
    except ValidationError as error:
        flag = _FLAGS.get(str(error.errors()[0]["loc"][0]), "")
        problem = f"{flag} {_first_problem(error)}".lstrip()
        hint = f"what {flag} takes: veche plan --help" if flag else ""
        raise RecipeError(problem, hint=hint) from error
    except ValueError as error:
        raise RecipeError(f"--set: {error}", hint="keep one of the two") from error


_FLAGS = {
    "mode": "--mode", "seed": "--seed", "rope_length": "--rope-length",
    "tensor_parallel": "--tp", "base": "--base",
}  # fmt: skip


def _parse_assignment(text: str) -> tuple[str, FieldWish]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(
            f"--set {text!r} is not name=value", hint="e.g. --set num_experts_per_tok=8"
        )
    return name.strip(), FieldWish(value=read_yaml(value, f"--set {name.strip()[:60]}: the value"))


def shipped_recipes() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _shipped().iterdir())


def load_recipe(name: str) -> Recipe:
    """Load a shipped recipe by name, or a YAML file by path.

    Raises:
        RecipeError: there is none, it is not YAML, or it has an unknown key or field.
    """
    return parse_recipe(recipe_text(name), where=name)


def recipe_text(name: str) -> str:
    """Return the YAML of a shipped recipe, or of a file.

    Raises:
        RecipeError: there is none, or it is not text.
    """
    shipped = shipped_recipes()
    if name in shipped:
        return (_shipped() / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, shipped, n=1)
        raise RecipeError(
            f"there is no recipe {name!r}, neither shipped nor as a file",
            hint=(f"did you mean {near[0]!r}? " if near else "") + f"shipped: {', '.join(shipped)}",
        )
    if path.stat().st_size > MAX_BYTES:
        raise RecipeError(
            f"{path} is too large for a recipe: {path.stat().st_size:,} bytes",
            hint=f"a recipe has at most {MAX_BYTES:,}",
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path} cannot be read as text: {error}") from error


def parse_recipe(text: str, *, where: str) -> Recipe:
    """Parse a recipe's YAML.

    Raises:
        RecipeError: what is wrong, with the nearest known key.
    """
    value = read_yaml(text, f"recipe {where}")
    if not isinstance(value, dict):
        raise RecipeError(
            f"recipe {where} is not a mapping of keys to values",
            hint="see a shipped one: veche plan demo --json",
        )
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(f"recipe {where}: {_first_problem(error)}") from error
    _refuse_unknown_fields(recipe.fields, f"recipe {where}")
    return recipe


def resolve_value(name: str, wanted: Any, base: Any) -> Any:
    """Return the value that a wish means for a base value: "x1.5" is a factor of it.

    Raises:
        RecipeError: it has not the field's type, or the factor gives no whole number.
    """
    if isinstance(wanted, str) and wanted[:1] == "x" and wanted[1:2].isdigit():
        return _scaled(name, wanted, base)
    return _checked(name, wanted, base)


def _checked(name: str, wanted: Any, base: Any) -> Any:
    if name in FIELDS:
        return FIELDS[name].checked(wanted)
    return checked_key(name, wanted, base)


def _scaled(name: str, wanted: str, base: Any) -> Any:
    if isinstance(base, bool) or not isinstance(base, int | float):
        raise RecipeError(
            f"{name}: {wanted!r} is a factor, and the base has {base!r}",
            hint="give the value itself",
        )
    # Fraction reads "1e99999999" too, and would never be done with it.
    if not re.fullmatch(r"x\d{1,9}(\.\d{1,9}|/0*[1-9]\d{0,8})?", wanted, re.ASCII):
        raise RecipeError(f"{name}: {wanted[:60]!r} is not a factor", hint="write x2, x1.5 or x4/3")
    exact = Fraction(wanted[1:]) * Fraction(str(base))
    if isinstance(base, float):
        return _checked(name, float(exact), base)
    if exact.denominator != 1:
        raise RecipeError(
            f"{name}: {base} {wanted} is {float(exact):.4g}, which is not a whole number",
            hint=f"give the value itself, e.g. {max(1, round(exact))}",
        )
    return _checked(name, int(exact), base)


def _shipped() -> Traversable:
    return resources.files("veche.planning") / "recipes"


def _refuse_unknown_fields(fields: dict[str, FieldWish], where: str) -> None:
    for name in fields:
        if name in FIELDS or name in ALIASES or name == "rope_parameters":
            continue
        if name not in (known := known_fields()):
            near = difflib.get_close_matches(name, [*FIELDS, *known], n=1, cutoff=0.5)
            raise RecipeError(
                f"{where}: there is no field {name!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(FIELDS)}",
            )


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = FieldWish.model_fields if key.startswith("fields.") else Recipe.model_fields
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        return f"unknown key {key!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    return f"{key}: {first['msg'].lower()}"
