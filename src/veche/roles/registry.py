"""The roles of this machine: those that packages bring, and the user's own, version by version."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from veche.core.errors import FailureError, RoleError, VecheError
from veche.core.files import sole_writer
from veche.core.language import Language
from veche.core.paths import home
from veche.plugins import registry as plugins
from veche.roles.objects import Objects
from veche.roles.role import Artefact, ArtefactKind, Role
from veche.roles.role_file import is_name, parse_role, require_name, role_text, version_hash
from veche.roles.versions import INDEX, SHIPPED, RoleVersion, Versions


class Registry:
    """Roles by name. A name means the version in use; what packages bring is version 0.

    NOTE: objects are written before the versions that name them, and removed after them; one lock
    keeps other processes out meanwhile. Readers need none: every file appears whole.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder_path = home() / "roles" if folder is None else folder
        self._objects = Objects(self.folder_path / "objects")

    def names(self) -> tuple[str, ...]:
        """Return the names of all roles, shipped and own. Nothing is imported."""
        return tuple(sorted({*plugins.names("roles"), *self._own_names()}))

    def get(self, name: str, version: int | None = None) -> Role:
        """Return a role: the version in use, or another one.

        Raises:
            RoleError: there is no such role or version, or it is damaged.
            FailureError: the package that brings it is broken.
        """
        chosen = self._version(name, version)
        if chosen.number == SHIPPED:
            return _shipped(name)
        return self._versions(name).role(chosen)

    def titles(self, language: Language) -> dict[str, str]:
        """Return how people call each role; a broken one keeps its name."""
        titles = {}
        for name in self.names():
            try:
                titles[name] = self.get(name).title[language]
            except VecheError:
                titles[name] = name
        return titles

    def versions(self, name: str) -> tuple[RoleVersion, ...]:
        """Return a role's versions, first to last.

        Raises:
            RoleError: there is no such role, or its index is damaged.
            FailureError: the package that brings it is broken.
        """
        self._require_known(name)
        own = self._versions(name).all()
        if name not in plugins.names("roles"):
            return own
        is_in_use = not any(version.is_in_use for version in own)
        shipped = RoleVersion(
            number=SHIPPED,
            content_hash=version_hash(_shipped(name)),
            created="",
            note=f"of package {plugins.package_of('roles', name)}",
            is_in_use=is_in_use,
        )
        return (shipped, *own)

    def keep(
        self,
        folder: Path,
        kind: ArtefactKind,
        *,
        base_hash: str | None = None,
        license: str | None = None,  # noqa: A002 - the word that model cards have
    ) -> Artefact:
        """Copy files in under the hash of their content; return what names them.

        Args:
            folder: a PEFT folder, a probe's folder, or a steering's file.
            kind: what it is.
            base_hash: content hash of the model that it was made with.
            license: SPDX identifier.

        Raises:
            CheckpointError: the files are damaged, or pickles.
            UnsupportedError: it is an adapter that no branch can have for itself.
            DiskError: the disk refuses.
        """
        with self._alone():
            content_hash = self._objects.keep(folder, kind)
        return Artefact(kind=kind, content_hash=content_hash, base_hash=base_hash, license=license)

    def folder(self, artefact: Artefact) -> Path:
        """Return where an artefact lies; its content is read and compared with its hash.

        Raises:
            RoleError: it is not there, or damaged.
        """
        return self._objects.folder(artefact)

    def save(self, role: Role, *, note: str = "") -> RoleVersion:
        """Keep a new version of a role, and put it in use; the first is 1.

        Raises:
            RoleError: something that it names is not in the registry, or it could not be read back.
            DiskError: the disk refuses.
        """
        require_name(role.name)
        parse_role(role_text(role), where=f"role {role.name!r}")
        with self._alone():
            for artefact in artefacts_of(role):
                self._objects.folder(artefact)
            return self._versions(role.name).add(role, note=note)

    def use(self, name: str, version: int) -> RoleVersion:
        """Put a version in use; 0 is the one that a package brings.

        Raises:
            RoleError: there is no such version.
        """
        with self._alone():
            chosen = self._version(name, version)
            self._versions(name).use(version)
        return replace(chosen, is_in_use=True)

    def remove(self, name: str, version: int | None = None) -> list[str]:
        """Remove a version, or all own ones; return the hashes of what nothing uses any more.

        Raises:
            RoleError: there is no such version, or a package brings it.
        """
        with self._alone():
            self._require_known(name)
            versions = self._versions(name)
            own = {entry.number: entry for entry in versions.all()}
            numbers = set(own) if version is None else {version}
            if not numbers or SHIPPED in numbers:
                raise RoleError(
                    f"role {name!r} is of the package {plugins.package_of('roles', name)!r}, "
                    "and is removed with it",
                    hint=f"the versions that it has: veche role show {name}",
                )
            if version is not None:
                self._version(name, version)
            gone = _hashes_of(versions, [own[number] for number in numbers])
            versions.remove(numbers)
            used = self._used()
            return [] if used is None else self._objects.sweep(used, gone)

    def num_bytes(self, artefact: Artefact) -> int:
        """Return how large an artefact is; 0 where it is not there."""
        return self._objects.num_bytes(artefact.content_hash)

    def _used(self) -> set[str] | None:
        """Return every hash that a version names; None where a damaged one keeps its secret."""
        used: set[str] = set()
        for name in self._own_names():
            versions = self._versions(name)
            try:
                for version in versions.all():
                    used |= {item.content_hash for item in artefacts_of(versions.role(version))}
            except RoleError:
                return None
        return used

    def _version(self, name: str, number: int | None) -> RoleVersion:
        versions = self.versions(name)
        for version in versions:
            if version.is_in_use if number is None else version.number == number:
                return version
        if number is None:
            raise RoleError(
                f"no version of role {name!r} is in use", hint=f"veche role use {name} NUMBER"
            )
        raise RoleError(
            f"role {name!r} has no version {number}",
            hint=f"it has: {', '.join(str(version.number) for version in versions)}",
        )

    def _require_known(self, name: str) -> None:
        names = self.names()
        if name in names:
            return
        require_name(name)
        near = difflib.get_close_matches(name, names, n=1)
        raise RoleError(
            f"there is no role {name!r}",
            hint=(f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(names)}",
        )

    def _own_names(self) -> list[str]:
        return [
            index.parent.name
            for index in self.folder_path.glob(f"own/*/{INDEX}")
            if is_name(index.parent.name)
        ]

    def _versions(self, name: str) -> Versions:
        return Versions(self.folder_path / "own" / name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with sole_writer(self.folder_path / "registry"):
            yield


def artefacts_of(role: Role) -> tuple[Artefact, ...]:
    """Return what a role has of trained and found things."""
    steering = None if role.steering is None else role.steering.artefact
    return tuple(item for item in (role.adapter, steering, role.probe) if item is not None)


def _hashes_of(versions: Versions, entries: list[RoleVersion]) -> set[str]:
    """Return what versions that are about to go name; a damaged one names nothing."""
    hashes: set[str] = set()
    for entry in entries:
        try:
            hashes |= {artefact.content_hash for artefact in artefacts_of(versions.role(entry))}
        except RoleError:
            continue
    return hashes


def _shipped(name: str) -> Role:
    """Read a package's YAML.

    Raises:
        FailureError: it is not there, or no role; the package is named.
    """
    file: Any = plugins.load("roles", name)
    package = plugins.package_of("roles", name)
    hint = f"update or remove it: pip uninstall {package}"
    try:
        text = str(file.read_text(encoding="utf-8"))
        role = parse_role(text, where=f"role {name!r} of package {package!r}")
    except (OSError, AttributeError, UnicodeDecodeError) as error:
        raise FailureError(
            f"role {name!r} of package {package!r} is broken: {error}", hint=hint
        ) from error
    except RoleError as error:
        raise FailureError(error.message, hint=hint) from error
    if role.name != name:
        raise FailureError(
            f"role {name!r} of package {package!r} is broken: its YAML calls it {role.name!r}",
            hint=hint,
        )
    return role
