"""The command line that starts an engine, and why its flags are there."""

from dataclasses import dataclass

from veche.core.language import Language
from veche.launch.case import Case
from veche.launch.phrases import phrase
from veche.launch.rules import ABOUT_CHECKPOINT, rules_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command without a shell.

    Attributes:
        argv: program and arguments.
        env: variables to set, by name.
        notes: what a reader must know, one sentence each.
        comments: what a flag or a variable is there for, by its name.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    comments: tuple[tuple[str, str], ...] = ()


def command_for(case: Case, *, port: int = 8000, language: Language = "en") -> Command:
    """Return the command that runs `case`."""
    from veche.launch import llama_cpp_command, sglang_command, transformers_command, vllm_command

    build = {
        "vllm": vllm_command.arguments,
        "sglang": sglang_command.arguments,
        "llama.cpp": llama_cpp_command.arguments,
        "transformers": transformers_command.arguments,
    }[case.engine]
    argv, reasons = build(case, port)
    env: list[tuple[str, str]] = []
    notes, comments = [], [(flag, phrase(key, language, **facts_of(case))) for flag, key in reasons]
    for rule in rules_for(case):
        text = phrase(rule.name, language, **facts_of(case))
        argv = (*argv, *rule.flags)
        env += rule.env
        comments += [(name, text) for name in (*rule.flags[:1], *(key for key, _ in rule.env))]
        if not (rule.flags or rule.env):
            notes.append(text)
    return Command(argv=argv, env=tuple(env), notes=tuple(notes), comments=tuple(comments))


def checkpoint_notes(case: Case, language: Language = "en") -> tuple[str, ...]:
    """Return what the weights at the model's place must be."""
    return tuple(
        phrase(rule.name, language, **facts_of(case))
        for rule in rules_for(case)
        if rule.name in ABOUT_CHECKPOINT
    )


def facts_of(case: Case) -> dict[str, object]:
    """Return values for the placeholders of every explanation."""
    spec, rope = case.spec, case.spec.rope
    return {
        "factor": rope.factor,
        "original": rope.original_max_position_embeddings or spec.max_position_embeddings,
        "reach": rope.max_scaled_positions or spec.max_position_embeddings,
        "length": spec.max_position_embeddings,
        "experts": spec.num_experts,
        "width": spec.moe_intermediate_size or spec.intermediate_size,
        "ranks": case.layout.tensor_parallel,
        "utilization": case.utilization,
        "tokens": case.step.batched_tokens,
        "context": case.context_tokens,
        "gpu": case.gpu.title,
        "model": case.model_path,
        "last_node": case.num_nodes - 1,
        "quantization": case.quantization,
        "stored": case.stored.told if case.stored else "",
    }
