"""Which texts may be embedded."""

from __future__ import annotations

from pyrope.errors import CommandError


def check_text(raw: bytes, max_bytes: int) -> str:
    """A text as clients send it: UTF-8, and not blank.

    Raises:
        CommandError: it is not; or it is longer than `max_bytes`.
    """
    if len(raw) > max_bytes:
        raise CommandError(
            f"invalid TEXT: it has {len(raw)} bytes, at most {max_bytes} are embedded"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise CommandError("invalid TEXT: UTF-8 is expected") from error
    if not text or text.isspace():
        raise CommandError("invalid TEXT: it is empty, or nothing but white space")
    return text
