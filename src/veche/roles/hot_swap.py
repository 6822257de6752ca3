"""Bring the adapters of roles into an engine and out of it while it serves."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

from veche.core.errors import InputError, UnsupportedError
from veche.engines.protocol import Capability, Engine, Steering, adapters
from veche.experts.steering.file import load_steering
from veche.roles.host import Host, require_made_for
from veche.roles.objects import STEERING_FILE
from veche.roles.registry import Registry
from veche.roles.role import Role
from veche.roles.speaker import Speaker


class HotSwap:
    """The adapters that one engine has of roles.

    NOTE: the engine knows an adapter by its content hash and by nothing else. So one that two roles
    share is loaded once; a role's name never decides which keys and values are read, and putting
    another adapter behind the name leaves every trunk and kept branch what it was. An adapter
    leaves the engine when no role's name means it and nobody speaks with it.

    One object serves one engine, from any number of threads.
    """

    def __init__(
        self, engine: Engine, registry: Registry | None = None, *, host: Host | None = None
    ) -> None:
        self.engine = engine
        self.registry = registry or Registry()
        self._host = host
        self._lock = RLock()
        self._loaded: set[str] = set()
        self._meant: dict[str, str] = {}
        self._held: Counter[str] = Counter()

    @property
    def loaded(self) -> frozenset[str]:
        """Content hashes of the adapters that are in the engine."""
        with self._lock:
            return frozenset(self._loaded)

    def load(self, role: Role) -> Speaker:
        """Make a role ready to speak; its name means this adapter from now on.

        Who speaks with the adapter that the name meant before goes on with it.

        Raises:
            UnsupportedError: the engine can't do what the role needs.
            InputError: adapter or steering were made with another model.
            RoleError: its files are missing or damaged.
            CheckpointError: the adapter does not fit the model.
        """
        self._require_able(role)
        steering = self._steering(role)
        with self._lock:
            adapter = self._bring(role)
            self._sweep()
        return Speaker(role=role, adapter=adapter, steering=steering)

    @contextmanager
    def holding(self, roles: Sequence[Role]) -> Iterator[tuple[Speaker, ...]]:
        """Make roles ready, and keep what they need in the engine until the block ends.

        Raises:
            VecheError: as `load`.
        """
        held: list[str] = []
        speakers: list[Speaker] = []
        try:
            for role in roles:
                with self._lock:
                    speaker = self.load(role)
                    if speaker.adapter is not None:
                        self._held[speaker.adapter] += 1
                        held.append(speaker.adapter)
                speakers.append(speaker)
            yield tuple(speakers)
        finally:
            with self._lock:
                self._held.subtract(held)
                self._sweep()

    def unload(self, name: str) -> bool:
        """Let a role's name mean no adapter any more.

        Returns:
            Whether its adapter has left the engine; else it leaves as soon as nobody speaks with
            it, and no other role means it.

        Raises:
            InputError: no adapter of that role is loaded.
        """
        with self._lock:
            if name not in self._meant:
                raise InputError(
                    f"no adapter of role {name!r} is loaded",
                    hint=f"loaded: {', '.join(sorted(self._meant)) or 'none'}",
                )
            content_hash = self._meant.pop(name)
            self._sweep()
            return content_hash not in self._loaded

    def close(self) -> None:
        """Let no name mean an adapter; what nobody speaks with leaves the engine."""
        with self._lock:
            self._meant.clear()
            self._sweep()

    def _bring(self, role: Role) -> str | None:
        if role.adapter is None:
            self._meant.pop(role.name, None)
            return None
        content_hash = role.adapter.content_hash
        if content_hash not in self._loaded:
            adapters(self.engine).load_adapter(content_hash, self.registry.folder(role.adapter))
            self._loaded.add(content_hash)
        self._meant[role.name] = content_hash
        return content_hash

    def _sweep(self) -> None:
        """Unload what no name means and nobody holds."""
        wanted = {*self._meant.values(), *(+self._held)}
        for content_hash in sorted(self._loaded - wanted):
            adapters(self.engine).unload_adapter(content_hash)
            self._loaded.discard(content_hash)

    def _steering(self, role: Role) -> Steering | None:
        if role.steering is None:
            return None
        basis = load_steering(self.registry.folder(role.steering.artefact) / STEERING_FILE)
        if self._host is not None:
            basis.require_fit(self._host.layers, self._host.num_experts, self._host.where)
        return basis.at(role.steering.strength, role.steering.layers)

    def _require_able(self, role: Role) -> None:
        needs = {
            Capability.ADAPTERS: role.adapter is not None,
            Capability.STEERING: role.steering is not None,
            Capability.NUM_EXPERTS_PER_TOK: role.num_experts_per_tok is not None,
        }
        for capability, is_needed in needs.items():
            if is_needed and capability not in self.engine.capabilities:
                raise UnsupportedError(
                    f"role {role.name!r} needs {_NEED[capability]}, and engine "
                    f"{self.engine.name!r} has no {capability.value}",
                    hint="use the transformers engine with a model that has them, or a version of "
                    f"the role without: veche role show {role.name}",
                )
        if self._host is not None:
            folder = None if role.adapter is None else self.registry.folder(role.adapter)
            require_made_for(role, self._host, folder=folder)


_NEED = {
    Capability.ADAPTERS: "its adapter",
    Capability.STEERING: "its steering",
    Capability.NUM_EXPERTS_PER_TOK: "its own number of active experts",
}
