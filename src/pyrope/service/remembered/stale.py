"""Records of responses that have ended, until they are off the disk.

After a crash they are there again. Of what has expired nothing comes of that; what was driven out
by others serves again. Yet what somebody has ended since must not come back: so whoever replaces or
forgets a response deletes such records, too, in the same commit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

Prompt = tuple[bytes, bytes]
"""Scope and key of one."""


class StaleRecords:
    """Of one index, each by its key. Each call takes microseconds."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[bytes, Prompt | None] = OrderedDict()
        self._by_prompt: dict[Prompt, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._prompts)

    def add(self, record_key: bytes, prompt: Prompt | None = None) -> None:
        """A response has ended.

        Args:
            prompt: it would answer that again after a crash; None: it would not.
        """
        self._prompts[record_key] = prompt
        if prompt is not None:
            self._by_prompt.setdefault(prompt, {})[record_key] = None

    def first(self, count: int) -> list[bytes]:
        """Those that have been there for longest."""
        return list(islice(self._prompts, count))

    def answering(self, prompt: Prompt) -> list[bytes]:
        """Those that would answer a prompt again."""
        return list(self._by_prompt.get(prompt, ()))

    def answering_any(self) -> list[bytes]:
        """Those that would answer some prompt again."""
        return [key for keys in self._by_prompt.values() for key in keys]

    def deleted(self, record_keys: Iterable[bytes]) -> None:
        """They are off the disk. Idempotent."""
        for key in record_keys:
            prompt = self._prompts.pop(key, None)
            if prompt is not None:
                keys = self._by_prompt[prompt]
                del keys[key]
                if not keys:
                    del self._by_prompt[prompt]

    def clear(self) -> None:
        self._prompts.clear()
        self._by_prompt.clear()
