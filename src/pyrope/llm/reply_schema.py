"""How a model is told what JSON to reply with."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final, Literal

from pydantic import BaseModel

from pyrope.llm.provider import Prompt

ResponseFormat = Literal["json_schema", "json_object", "text"]

_KEPT: Final = frozenset(
    {
        "$ref",
        "additionalProperties",
        "anyOf",
        "description",
        "enum",
        "items",
        "maxItems",
        "maximum",
        "minItems",
        "minimum",
        "required",
        "type",
    }
)
"""Keywords that both APIs understand; what others say is checked when the reply is here.

https://platform.openai.com/docs/guides/structured-outputs (supported schemas) and
https://ai.google.dev/api/generate-content (responseJsonSchema).
"""

_FENCE: Final = "```"


@lru_cache(maxsize=64)
def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of `model`, in the dialect that OpenAI calls strict and Gemini knows too.

    Every property is required, no other is allowed, and of the keywords only those are left that
    both know. To be read only: it is kept.
    """
    schema = _reduced(model.model_json_schema())
    if not isinstance(schema, dict):
        raise TypeError(f"{model.__name__} has no schema of an object")
    return schema


def _reduced(node: Any) -> Any:
    if isinstance(node, list):
        return [_reduced(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {name: _reduced(value) for name, value in node.items() if name in _KEPT}
    for names in ("properties", "$defs"):
        if names in node:
            kept[names] = {name: _reduced(value) for name, value in node[names].items()}
    if "const" in node:
        kept["enum"] = [node["const"]]
    if node.get("type") == "object":
        kept["additionalProperties"] = False
        kept["required"] = list(node.get("properties", ()))
    return kept


def system_text(prompt: Prompt, form: ResponseFormat) -> str:
    """The instructions; with the schema in words where the API is not given it."""
    if form == "json_schema":
        return prompt.system
    schema = json.dumps(strict_schema(prompt.schema), separators=(",", ":"))
    return (
        f"{prompt.system}\n\nReply with one JSON object that fits this JSON schema, "
        f"and with nothing else:\n{schema}"
    )


def reply_text(text: str, form: ResponseFormat) -> str:
    """A reply; without the Markdown fence that models put around JSON where nothing stops them."""
    stripped = text.strip()
    if form != "text" or not (stripped.startswith(_FENCE) and stripped.endswith(_FENCE)):
        return text
    first, newline, rest = stripped.partition("\n")
    return rest.removesuffix(_FENCE).strip() if newline and len(first) <= 16 else text
