"""A role that is ready to speak with one engine."""

from dataclasses import dataclass, fields, replace
from typing import Any

from veche.core.language import Language
from veche.engines.protocol import Branch, Sampling, Steering
from veche.roles.role import Role, RoleSampling

_BREAK = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A role, and what the engine has of it.

    Attributes:
        role: who speaks.
        adapter: its name in the engine, which is its content hash; None without one.
        steering: what biases the routers; None without one.
    """

    role: Role
    adapter: str | None = None
    steering: Steering | None = None

    def branch(self, *, voice: str, instruction: str, sampling: Sampling, **more: Any) -> Branch:
        """Return the role's request.

        Args:
            voice: how its branch is called.
            instruction: what it is asked, as `instruction_for` says it.
            sampling: of the run; the role's own dials go before it.
            more: of `Branch`.
        """
        return Branch(
            voice=voice,
            instruction=instruction,
            sampling=sampled(self.role, sampling),
            num_experts_per_tok=self.role.num_experts_per_tok,
            steering=self.steering,
            adapter=self.adapter,
            **more,
        )


def instruction_for(role: Role, task: str) -> str:
    """Return a task as it stands in a role's branch: behind its invocation, or an empty line.

    NOTE: an adapter with invocation tokens acts from the last place where they stand. They are
    found if the text around them is tokenised as in training: nothing is put between invocation
    and task, and the invocation is the branch's beginning.
    """
    return (role.invocation or _BREAK) + task.strip()


def own_instruction(role: Role, language: Language | None) -> str:
    """Return a role's prompt alone, as it is trained on and measured with.

    Args:
        role: whose prompt it is.
        language: of the prompt; None, where nobody knows, is English.
    """
    return instruction_for(role, role.prompt[language or "en"])


def sampled(role: Role, sampling: Sampling) -> Sampling:
    """Return a run's sampling with the role's own dials in it."""
    dials = {item.name: getattr(role.sampling, item.name) for item in fields(RoleSampling)}
    return replace(sampling, **{name: value for name, value in dials.items() if value is not None})
