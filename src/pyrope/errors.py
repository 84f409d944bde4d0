"""Every error that a client can see, each with its wire prefix (see docs/wire.md, *Errors*)."""

from __future__ import annotations

from typing import ClassVar


class PyropeError(Exception):
    """A refusal that reaches the client as ``-PREFIX sentence``.

    The message says what was wrong and what was expected. CR and LF never reach the wire: the
    writer replaces them.
    """

    prefix: ClassVar[str] = "ERR"

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else ""


class CommandError(PyropeError):
    """Syntax, wrong arity, a bad option or a bad number."""


class NoAuthError(PyropeError):
    prefix = "NOAUTH"


class WrongPassError(PyropeError):
    prefix = "WRONGPASS"


class NoPermError(PyropeError):
    prefix = "NOPERM"


class NoProtoError(PyropeError):
    prefix = "NOPROTO"


class DeniedError(PyropeError):
    """Protected mode: a client that is not on this host, and no password is configured."""

    prefix = "DENIED"


class NoIndexError(PyropeError):
    prefix = "NOINDEX"


class ExistsError(PyropeError):
    prefix = "EXISTS"


class DimensionError(PyropeError):
    prefix = "DIM"


class QuotaError(PyropeError):
    """A tenant's rate, concurrency or storage quota is used up. Nothing has been done.

    Attributes:
        retry_after_s: seconds from now after which another try may be let in; None: waiting alone
            does not help.
    """

    prefix = "QUOTA"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BudgetError(PyropeError):
    """A tenant's budget of the month is spent, and its policy says reject."""

    prefix = "BUDGET"


class BusyError(PyropeError):
    prefix = "BUSY"


class OutOfMemoryError(PyropeError):
    prefix = "OOM"


class MisconfError(PyropeError):
    """The data directory cannot be written: writes are refused, reads go on."""

    prefix = "MISCONF"


class LoadingError(PyropeError):
    prefix = "LOADING"


class ProtocolError(Exception):
    """Bytes that are not RESP, or that break a limit: the connection is told and closed."""
