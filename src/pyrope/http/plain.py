"""Reply values of commands as JSON has them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from pyrope.commands.search_reply import Found
from pyrope.resp.writer import decode_bulk


def plain(value: Any) -> Any:
    """A value in what JSON has. What is no finite number is null."""
    match value:
        case bytes():
            return plain_bytes(value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case _:
            return value


def plain_bytes(raw: bytes) -> str | dict[str, str]:
    """Text where they are UTF-8; else an object with their base64, which no text is taken for."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def encode_json(value: Any) -> bytes:
    """JSON without blanks. Raises ValueError for what `plain` would have made null."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def encode_found(found: Found) -> bytes:
    """An answer: ``{"hits": [{"id", "score", "attributes"}], "info": {…}}``.

    Attributes are put in as they were sent, which was checked to be JSON then: there may be many,
    and parsing them takes long.
    """
    hits = found.hits
    attributes = hits.attributes or [None] * len(hits.ids)
    told = [
        b'{"id":%b,"score":%b,"attributes":%b}'
        % (_encode_id(id_), _encode_score(score), raw or b"null")
        for id_, score, raw in zip(hits.ids, hits.scores, attributes, strict=True)
    ]
    return b'{"hits":[%b],"info":%b}' % (b",".join(told), encode_json(plain(found.info)))


def _encode_id(encoded: bytes) -> bytes:
    shown = plain_bytes(decode_bulk(encoded))
    return encode_basestring(shown).encode() if isinstance(shown, str) else encode_json(shown)


def _encode_score(score: float) -> bytes:
    return repr(score).encode() if math.isfinite(score) else b"null"
