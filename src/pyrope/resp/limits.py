"""How much of a client's word is believed: the limits on what one connection may send."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """Bounds on one command. Every field counts from 1; what breaks one is a protocol error.

    The defaults are those of Redis 8 where it has one (``proto-max-bulk-len`` 512 MB,
    ``client-query-buffer-limit`` 1 GB, ``PROTO_INLINE_MAX_SIZE`` 64 KB). ``max_args`` is lower
    than its 2**31: a million arguments already take some 60 MB as Python objects.
    """

    max_args: int = 1_048_576
    """Arguments of one command, its name included."""
    max_arg_bytes: int = 512 * 1024 * 1024
    """Bytes of one argument."""
    max_command_bytes: int = 1024 * 1024 * 1024
    """Bytes of one command as it is sent, headers included."""
    max_inline_bytes: int = 64 * 1024
    """Bytes of one line: an inline command, or a count or length header."""
    unauthenticated: bool = False
    """Whether the client has yet to authenticate; it words the errors as Redis does."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name.startswith("max_") and getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1")
        if self.max_inline_bytes < 64:
            # Any header fits, and blank lines of up to 64 bytes can be skipped unmeasured.
            raise ValueError("max_inline_bytes must be at least 64")


UNAUTHENTICATED_LIMITS = ReaderLimits(
    max_args=10,
    max_arg_bytes=16 * 1024,
    max_command_bytes=256 * 1024,
    unauthenticated=True,
)
"""What Redis grants before AUTH: 10 arguments of 16 KiB. Ten such arguments fit in the 256 KiB."""
