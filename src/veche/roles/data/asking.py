"""How a model is asked a question whose answer can be checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from veche.core.errors import UnsupportedError
from veche.core.language import Language, Phrase
from veche.engines.protocol import Branch, Capture, Sampling
from veche.roles.data.dialogue import problem_of
from veche.roles.data.example import Example
from veche.roles.role import Role

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
_DIALS = ("top_p", "top_k", "min_p", "repetition_penalty")


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

    def branch(self, voice: "Asked", *, question: str = "") -> Branch:
        """Return a voice's request; `question` is as `problem` gives it, if the trunk has none."""
        told = [voice.prompt, "" if self.worked else _TASK[self.language]]
        prompt = " ".join(part for part in told if part)
        head = voice.invocation or (_BREAK if prompt else "")
        return Branch(
            voice=voice.name,
            instruction=question + head + prompt,
            sampling=replace(voice.sampling, stop=(_STOP[self.language],)),
            adapter=voice.adapter,
            num_experts_per_tok=voice.num_experts_per_tok,
            capture=Capture(routing=False, logprobs=0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A voice that answers.

    Attributes:
        name: unique among those that are asked together.
        prompt: how it should think; may be empty.
        sampling: how it picks its tokens.
        invocation: text from which its adapter acts; put before the prompt.
        adapter: the name that it is loaded under.
        num_experts_per_tok: active experts while it speaks; None is the model's own.
    """

    name: str
    prompt: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    invocation: str = ""
    adapter: str | None = None
    num_experts_per_tok: int | None = None


def asked_roles(
    roles: Sequence[Role],
    language: Language,
    *,
    samples: int = 1,
    max_new_tokens: int = 128,
    temperature: float = 0.7,
    seed: int = 0,
) -> list[Asked]:
    """Return roles as voices that answer, each `samples` times.

    An adapter must be loaded under its role's name.

    Args:
        roles: who is asked.
        language: of their prompts.
        samples: answers of each.
        max_new_tokens: of each answer.
        temperature: from its second answer on, of a role that is greedy by itself.
        seed: of the first voice's sampling; each has its own.

    Raises:
        UnsupportedError: a role is steered, which these answers would not be.
    """
    if steered := [role.name for role in roles if role.steering is not None]:
        raise UnsupportedError(
            f"role {steered[0]!r} is steered, and own answers are collected without steering",
            hint="leave it out: --voices",
        )
    voices: list[Asked] = []
    for role in roles:
        given = {
            name: value for name in _DIALS if (value := getattr(role.sampling, name)) is not None
        }
        for number in range(samples):
            sampling = Sampling(
                max_new_tokens=max_new_tokens,
                temperature=role.sampling.temperature or (temperature if number else 0.0),
                seed=seed + len(voices),
            )
            voices.append(
                Asked(
                    name=role.name if number == 0 else f"{role.name}-{number + 1}",
                    prompt=role.prompt[language],
                    sampling=replace(sampling, **given),
                    invocation=role.invocation,
                    adapter=role.name if role.adapter is not None else None,
                    num_experts_per_tok=role.num_experts_per_tok,
                )
            )
    return voices
