"""`veche role compare`: two roles, or two versions of one, on the same examples."""

from typing import Annotated

import typer

from veche.cli.engine_options import EngineOption, EngineOptions
from veche.cli.role_eval import (
    CacheOption,
    DataOption,
    ModelArgument,
    MostOption,
    SeedOption,
    SplitOption,
    TokensOption,
    named_role,
    opened,
    read_part,
)
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
)


def compare(
    first: Annotated[str, typer.Argument(help="A role: NAME, or NAME@VERSION.")],
    second: Annotated[str, typer.Argument(help="The role that it is compared with, likewise.")],
    model: ModelArgument,
    data: DataOption,
    split: SplitOption = None,
    most: MostOption = None,
    seed: SeedOption = 0,
    max_tokens: TokensOption = 256,
    cache: CacheOption = None,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say by how much a second role is better than a first one, with intervals."""
    from veche.roles.evaluation.compare import compare as measure
    from veche.roles.evaluation.report import comparison_dict
    from veche.roles.registry import Registry

    language, progress, registry = chosen_language(lang), TerminalProgress(), Registry()
    one, other = (named_role(registry, name)[0] for name in (first, second))
    examples = read_part(data, split, most=most, seed=seed)
    task = opened(
        [one, other], model, examples, [], engine=engine, options=engine_option, cache=cache,
        max_tokens=max_tokens, progress=progress,
    )  # fmt: skip
    comparison = measure((one, other), (first, second), task, registry, progress=progress)
    if as_json:
        print_json(comparison_dict(comparison))
    else:
        from veche.cli.role_eval_view import show_comparison

        show_comparison(comparison, language)
