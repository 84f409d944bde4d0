"""Files of the pages: what is in the package, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from fastapi import Response
from starlette.exceptions import HTTPException

_STATIC = files("pyrope.http") / "static"
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def static_file(folder: str, name: str, headers: Mapping[str, str] | None = None) -> Response:
    """A file of a folder of `static`. Raises HTTPException where there is no such file."""
    kind = _TYPES.get(name.rpartition(".")[2])
    # Of the names that there are, so that no other path can be made up.
    for found in (_STATIC / folder).iterdir():
        if kind is not None and found.name == name:
            return Response(
                found.read_bytes(),
                headers={"Cache-Control": "no-cache", **(headers or {})},
                media_type=kind,
            )
    raise HTTPException(404, f"there is no page '{name[:128]}'")
