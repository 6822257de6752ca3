"""The tree of errors that veche raises on purpose.

VecheError
├── InputError        exit 2: what the user gave cannot be used as it is
│   ├── RecipeError       a recipe or a plan
│   ├── ConfigError       a config.json
│   ├── CheckpointError   model files on disk
│   ├── OutputError       a place to write to
│   ├── RoleError         a role, or what is kept of one
│   ├── UnsupportedError  asked of something that cannot do it
│   └── MissingExtraError a package that is not installed
├── FailureError      exit 1: the input was good, the work did not succeed
│   ├── DiskError         the disk refused
│   ├── EngineError       a model did not answer
│   ├── ClusterError      workers on other machines did not deliver
│   ├── TransferError     a remote folder did not answer
│   └── VerificationError a result is not what it must be
└── StoppedError      exit 130: the user stopped it
"""

from typing import ClassVar


class VecheError(Exception):
    """Base of every error that veche raises on purpose.

    Attributes:
        message: what is wrong (with value and path) and why.
        hint: what to do next, ideally a command; empty when there is nothing to advise.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Let it travel between processes, whatever its own class takes to be made."""
        return _revived, (type(self), self.message, self.hint)


def _revived(kind: type[VecheError], message: str, hint: str) -> VecheError:
    error = kind.__new__(kind)
    VecheError.__init__(error, message, hint=hint)
    return error


class InputError(VecheError):
    """What the user gave cannot be used as it is."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe or a plan is malformed or asks for what cannot be done."""


class ConfigError(InputError):
    """A config.json is unreadable, contradictory, or of an unknown family."""


class CheckpointError(InputError):
    """Model files on disk are missing, damaged, or in a format that veche refuses."""


class OutputError(InputError):
    """A place to write to is taken or unusable."""


class RoleError(InputError):
    """A role is unknown, malformed, or damaged where it is kept."""


class UnsupportedError(InputError):
    """Something was asked of an engine, a family or an operation that cannot do it."""


class MissingExtraError(InputError):
    """A package that this command needs is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this command needs the package {package!r}, which is not installed",
            hint=f"pip install 'veche[{extra}]'",
        )


class FailureError(VecheError):
    """The input was good, the work did not succeed."""


class DiskError(FailureError):
    """The disk refused a read or a write: full, read-only, or gone."""


class EngineError(FailureError):
    """A model did not answer."""


class ClusterError(FailureError):
    """Workers on other machines died, or did not deliver."""


class TransferError(FailureError):
    """A remote folder did not answer, or not with what it had announced."""


class VerificationError(FailureError):
    """A result is not what it must be."""


class StoppedError(VecheError):
    """The user stopped the work, with Ctrl-C."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__(
            "interrupted: nothing is half-written, and what was finished is kept",
            hint="run the same command again; veche build and veche role train take --resume",
        )
