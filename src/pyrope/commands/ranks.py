"""Who may use a command, as numbers that the hot path compares."""

from __future__ import annotations

READER, OPERATOR, ADMINISTRATOR = range(3)
"""A reader of a tenant; who may write in it, too; the administrator of the server."""
