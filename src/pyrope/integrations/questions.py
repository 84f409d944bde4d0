"""What is asked of a model: a prompt, and everything else that its answer depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pyrope.integrations.calls import REQUEST, VIA, CallOptions, current

Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked up.

    Attributes:
        prompt: what near hits go by.
        scope: within which alone.
        call: options of the call that it is of.
    """

    prompt: str
    scope: Mapping[str, str]
    call: CallOptions

    @property
    def key(self) -> Key:
        """Equal for what one answer is for."""
        return self.prompt, tuple(sorted(self.scope.items()))


def question(prompt: str, via: str, given: object, scope: Mapping[str, str]) -> Question | None:
    """A question of the current call.

    Args:
        via: the integration: what one remembers, another cannot read.
        given: what the answer depends on beside the prompt; as of `digest`.
        scope: fields of every scope.

    Returns:
        None: it is not to be looked up, for the call's options say so, or the prompt is blank, or
        no text that can be sent.

    Raises:
        TypeError: `given` holds what has no form to compare it by.
    """
    call = current()
    if not call.enabled or not prompt.strip():
        return None
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return None
    fields = {**scope, **call.scope, VIA: via, REQUEST: digest(given)}
    return Question(prompt, fields, call)


def digest(value: object) -> str:
    """SHA-256 of what JSON can say, whatever the order of its names; pydantic's models included.

    Raises:
        TypeError, ValueError: JSON cannot say it.
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=_plain
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_unset=True)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a request with {type(value).__name__} in it cannot be compared with others")
