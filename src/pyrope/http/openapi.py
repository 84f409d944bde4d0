"""The description of the control plane (OpenAPI 3.1), as FastAPI makes it, with what all have."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from pyrope.commands.ranks import ADMINISTRATOR, OPERATOR, READER
from pyrope.http.calls import COMMAND, RANK
from pyrope.http.plain import encode_json
from pyrope.http.problems import MEDIA_TYPE

_ROLES = {
    READER: "a reader of the tenant",
    OPERATOR: "an operator of the tenant",
    ADMINISTRATOR: "the administrator",
}
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "Problem details (RFC 9457). `code` is the word that an error begins with on "
    "the wire.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "problem"],
                "properties": {"at": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
    },
}
_ALWAYS = {
    "400": "The command refuses it, or it is no JSON.",
    "401": "Nobody has signed in, or with a wrong key.",
    "403": "It is not theirs to do.",
    "422": "Members, parameters or their types are not as described.",
    "429": "Too much at a time, or too often: a quota, a rate, or wrong keys. Retry-After says "
    "when to come back.",
    "503": "The server is loading, sheds load, or its disk refuses writes.",
}
_WITH_BODY = {"413": "The body is too long.", "415": "The body is not of type application/json."}
_BY_PATH = {"404": "There is no such thing."}
_METERED = {"402": "The budget of the month is spent."}
_WRITING = {"409": "It is there already.", "507": "There is no memory left for it."}
_CONDITIONAL = {"412": "If-Match names another entity tag than there is."}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Entity tags of which one must be what there is now.",
}


def openapi_json(app: FastAPI) -> bytes:
    """The document."""
    document = app.openapi()
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    components["securitySchemes"] = {
        "login": {
            "type": "http",
            "scheme": "basic",
            "description": "admin, a tenant, or tenant.user; and its key.",
        },
        "key": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "The key of the login in X-Tenant; without that, the administrator's.",
        },
    }
    commands = app.state.gate.server.commands
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation, commands)
    return encode_json(document)


def _complete(path: str, method: str, operation: dict[str, Any], commands: Any) -> None:
    """Say of an operation who may use it, and what it may answer beside what it is for."""
    responses = operation["responses"]
    problems = dict(_ALWAYS)
    command = None
    if COMMAND in operation:
        parent, _, word = operation[COMMAND].partition("|")
        command = commands[parent.encode()]
        command = command.subcommands[word] if word else command
        operation[RANK] = command.rank
    if RANK not in operation:
        # Nobody has to sign in.
        problems = {code: problems[code] for code in ("403", "429", "503")}
    else:
        operation["security"] = [{"login": []}, {"key": []}]
        allowed = f"Takes {_ROLES[operation[RANK]]}, at the least."
        told = f"Stands for `{command.name.replace('|', ' ')}`. {allowed}" if command else allowed
        described = operation.get("description", "")
        operation["description"] = f"{described}\n\n{told}".strip()
    if "requestBody" in operation:
        problems |= _WITH_BODY
    if "{" in path or "tenant" in {one["name"] for one in operation.get("parameters", ())}:
        problems |= _BY_PATH
    if command is not None and command.has_index:
        problems |= _METERED
    if method != "get" and RANK in operation:
        problems |= _WRITING
    if method == "patch":
        problems |= _CONDITIONAL
        operation.setdefault("parameters", []).append(_IF_MATCH)
    responses.pop("422", None)
    for code, description in problems.items():
        responses[code] = {
            "description": description,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
