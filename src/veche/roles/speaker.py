"""A role that is ready to speak with one engine."""

from dataclasses import dataclass, fields, replace
from typing import Any

from veche.core.language import Language
from veche.engines.protocol import Branch, Sampling, Steering
from veche.roles.role import Role, RoleSampling


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
            instruction: what it is asked, with `persona` in it.
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


def persona(role: Role, language: Language) -> str:
    """Return what stands before every task of a role: its invocation, then its prompt."""
    return f"{role.invocation} {role.prompt[language]}".strip()


def sampled(role: Role, sampling: Sampling) -> Sampling:
    """Return a run's sampling with the role's own dials in it."""
    dials = {item.name: getattr(role.sampling, item.name) for item in fields(RoleSampling)}
    return replace(sampling, **{name: value for name, value in dials.items() if value is not None})
