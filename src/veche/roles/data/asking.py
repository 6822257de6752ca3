"""How a model is asked a question whose answer can be checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from veche.core.language import Language, Phrase
from veche.engines.protocol import Branch, Capture, Sampling
from veche.roles.data.dialogue import problem_of
from veche.roles.data.example import Example
from veche.roles.speaker import Speaker, instruction_for, sampled

_SYSTEM: Phrase = {
    "en": "You are a helpful assistant. You solve problems step by step.",
    "ru": "Ты полезный помощник. Ты решаешь задачи шаг за шагом.",
}
_PROBLEM: Phrase = {"en": "Problem: {question}", "ru": "Задача: {question}"}
_SOLUTION: Phrase = {"en": "Solution: {solution}", "ru": "Решение: {solution}"}
_TASK: Phrase = {
    "en": 'End with a line that says "Answer:" and nothing but the answer.',
    "ru": "Закончи строкой «Ответ:», в которой нет ничего, кроме ответа.",
}
_STOP: Phrase = {"en": "\nProblem:", "ru": "\nЗадача:"}
"""Small models go on with a problem of their own."""
_BREAK = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The words around questions.

    Attributes:
        language: of these words.
        worked: solved problems that are shown first, the same for all questions. Without any, the
            model is told how to end instead.
    """

    language: Language
    worked: tuple[Example, ...] = ()

    @property
    def system(self) -> str:
        """What all voices are told first."""
        return _SYSTEM[self.language]

    @property
    def opening(self) -> str:
        """What stands before the first question: the worked problems."""
        return "".join(
            self.problem(problem_of(example.messages))
            + "\n"
            + _SOLUTION[self.language].format(solution=example.messages[-1].content)
            + _BREAK
            for example in self.worked
        )

    def problem(self, question: str) -> str:
        """Return a question as it is put."""
        return _PROBLEM[self.language].format(question=question)

    def branch(
        self, voice: "Asked", *, question: str = "", capture: Capture | None = None
    ) -> Branch:
        """Return a voice's request.

        Args:
            voice: who is asked.
            question: as `problem` gives it, where the trunk holds none: for the plain model only.
            capture: what is reported of the answer.
        """
        sampling = replace(voice.sampling, stop=(_STOP[self.language],))
        told = [
            "" if voice.speaker is None else voice.speaker.role.prompt[self.language],
            "" if self.worked else _TASK[self.language],
        ]
        task = " ".join(part for part in told if part)
        capture = capture or Capture(routing=False)
        if voice.speaker is None:
            instruction = question + (_BREAK + task if task else "")
            return Branch(
                voice=voice.name, instruction=instruction, sampling=sampling, capture=capture
            )
        branch = voice.speaker.branch(
            voice=voice.name,
            instruction=instruction_for(voice.speaker.role, task),
            sampling=sampling,
            capture=capture,
        )
        return replace(branch, sampling=sampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A voice that answers.

    Attributes:
        name: unique among those that are asked together.
        sampling: how it picks its tokens.
        speaker: the role that speaks; None is the model without any prompt.
    """

    name: str
    sampling: Sampling = field(default_factory=Sampling)
    speaker: Speaker | None = None


def asked_speakers(
    speakers: Sequence[Speaker],
    *,
    samples: int = 1,
    max_new_tokens: int = 128,
    temperature: float = 0.7,
    seed: int = 0,
) -> list[Asked]:
    """Return roles as voices that answer, each `samples` times.

    Args:
        speakers: who is asked.
        samples: answers of each.
        max_new_tokens: of each answer.
        temperature: from its second answer on, of a role that is greedy by itself.
        seed: of the first voice's sampling; each has its own.
    """
    voices: list[Asked] = []
    for speaker in speakers:
        for number in range(samples):
            sampling = sampled(speaker.role, Sampling(max_new_tokens=max_new_tokens))
            name = speaker.role.name
            voices.append(
                Asked(
                    name=name if number == 0 else f"{name}-{number + 1}",
                    sampling=replace(
                        sampling,
                        temperature=sampling.temperature or (temperature if number else 0.0),
                        seed=seed + len(voices),
                    ),
                    speaker=speaker,
                )
            )
    return voices
