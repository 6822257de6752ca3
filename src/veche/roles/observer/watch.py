"""An observer's probe over a council: what each voice looks like from inside, as it has spoken.

NOTE: it reads what the engine reports of branches that were decoded anyway. It asks for no token,
adds nothing to the trunk and is given no say, so a council says the same with it and without.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from veche.engines.protocol import BranchResult, Capture, Engine, require
from veche.roles.data.example import Example, Message
from veche.roles.host import require_trained_on
from veche.roles.probe.features import answer_blocks, step_blocks
from veche.roles.probe.first_wrong import first_wrong_step
from veche.roles.probe.observation import Observation
from veche.roles.probe.observe import NEEDED_LIVE, capture_of, observation_of
from veche.roles.probe.probe_file import TrainedProbes, load_probes
from veche.roles.probe.reading import reading_of
from veche.roles.probe.scalars import ROUTER_SCALARS
from veche.roles.probe.steps import cut
from veche.roles.registry import Registry
from veche.roles.role import Role

_DIGITS = 4
_DRIFT = ROUTER_SCALARS[4]


def watch_of(
    engine: Engine, registry: Registry, roles: Sequence[Role], question: str
) -> "Watch | None":
    """Return what watches a council of roles; None where no observer with a probe sits in it.

    Raises:
        RoleError: the probe is not in the registry.
        CheckpointError: it is damaged.
        UnsupportedError: as for `Watch`.
    """
    for role in roles:
        if role.kind == "observer" and role.probe is not None:
            return Watch(engine, load_probes(registry.folder(role.probe)), question)
    return None


class Watch:
    """Reads the voices of one run.

    Args:
        engine: that the voices speak through.
        probes: an observer's.
        question: that they answer.

    Raises:
        UnsupportedError: the engine can't look inside its model, or runs another one than the
            probe was trained on.
    """

    def __init__(self, engine: Engine, probes: TrainedProbes, question: str) -> None:
        require(engine, *NEEDED_LIVE)
        require_trained_on(probes.base_hash, engine)
        self._probes = probes
        self._question = question
        self.capture: Capture = capture_of(engine, probes.layers)
        """What branches are to report."""

    def report(self, said: Mapping[str, Sequence[BranchResult]]) -> dict[str, Any]:
        """Return the signals of a step in which voices answered, by signal and voice.

        `confidence`: probability that the answer is right. `suspicion`: for each line of it, that
        it is wrong if all before it are right. `first_bad_step`: the likeliest first wrong line,
        null where it is likelier that there is none. `drift`: how far, in the mean, a line's
        routing is from that of the line before it, 0–1; only where there are routers.
        """
        signals: dict[str, Any] = {}
        for voice, results in said.items():
            for name, value in self._voice(results[-1]).items():
                signals.setdefault(name, {})[voice] = value
        return signals

    def _voice(self, result: BranchResult) -> dict[str, Any]:
        steps, owner = cut(result.text)
        if not steps:
            return {}
        messages = (
            Message(role="user", content=self._question),
            Message(role="assistant", content="\n".join(steps)),
        )
        example = Example(messages=messages, group="", task="council", steps=steps)
        seen = observation_of(reading_of(result, owner, len(steps)))
        return {**self._scored(example, seen), **_drift(seen)}

    def _scored(self, example: Example, seen: Observation) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if (answer := self._probes.stacks.get("answer")) is not None:
            rows = {name: row[None] for name, row in answer_blocks(example, seen).items()}
            found["confidence"] = round(float(answer.scores(rows)[0, 1]), _DIGITS)
        if (step := self._probes.stacks.get("step")) is not None:
            hazard = step.scores(step_blocks(example, seen))[:, 1]
            found["suspicion"] = [round(float(chance), _DIGITS) for chance in hazard]
            found["first_bad_step"] = first_wrong_step(hazard)
        return found


def _drift(seen: Observation) -> dict[str, float]:
    if _DRIFT not in seen.scalar_names or len(seen.hidden) < 2:
        return {}
    drift = seen.scalars[1:, seen.scalar_names.index(_DRIFT)]
    return {"drift": round(float(drift.mean()), _DIGITS)}
