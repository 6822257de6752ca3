"""What a role is: a prompt, and what may be trained for it."""

from dataclasses import dataclass, field
from typing import Literal

from veche.core.language import Phrase

RoleKind = Literal["drafter", "objector", "synthesiser", "observer", "reader"]
"""What it does in a council: a drafter drafts; an objector drafts and objects; a synthesiser writes
the answer; an observer watches the others and reports; a reader reports what is being asked."""
ArtefactKind = Literal["adapter", "steering", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """Something trained or found, kept in the registry under the hash of its content.

    Attributes:
        kind: what it is.
        content_hash: SHA-256 of its files (`checkpoint.identity.hash_of`).
        base_hash: content hash of the model that it was made with; None where nobody knows.
        license: SPDX identifier; None where nobody said.
    """

    kind: ArtefactKind
    content_hash: str
    base_hash: str | None = None
    license: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSampling:
    """How a role picks its tokens; None leaves a dial to who runs it."""

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSteering:
    """A steering file of the registry, and how strongly it is applied.

    Attributes:
        artefact: of kind "steering".
        strength: as `veche steer apply` takes it.
        layers: layers it is applied to; None is all that it has.
    """

    artefact: Artefact
    strength: float = 1.0
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One voice over the shared model.

    Attributes:
        name: lower-case letters, digits and hyphens; how transcripts and commands call it.
        kind: what it does in a council.
        title: how people call it, by language.
        prompt: how it should think, by language; put before each task that it is given.
        sampling: how it picks its tokens.
        invocation: text from which adapter and steering act; put before the prompt. Empty: none.
        num_experts_per_tok: active experts while it speaks; None is the model's own.
        adapter: of kind "adapter".
        steering: which experts it favours.
        probe: of kind "probe": what an observer or a reader measures with.
        license: SPDX identifier of the definition itself.
        parents: content hashes of the role versions that this one was made from.
    """

    name: str
    kind: RoleKind
    title: Phrase
    prompt: Phrase
    sampling: RoleSampling = field(default_factory=RoleSampling)
    invocation: str = ""
    num_experts_per_tok: int | None = None
    adapter: Artefact | None = None
    steering: RoleSteering | None = None
    probe: Artefact | None = None
    license: str = "Apache-2.0"
    parents: tuple[str, ...] = ()
