"""A model that knows the answers: what a stand-in of a provider says where labels are known.

It reads the prompts of `pyrope.llm.prompts` as a model would, and tells texts apart by what they
mean, which a function knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from typing import Any

from pyrope.testing.provider_outcomes import Answer, Asked, answer_json


class Oracle:
    """A behaviour of `pyrope.testing.provider_servers`.

    Args:
        meaning: of a text; two texts with the same one deserve the same answer. None: it is not
            known, and like no other.
        confidence: that it claims.
        advice: what it replies about clusters, without the confidence.

    Attributes:
        asked: the documents it was given, in their order.
    """

    def __init__(
        self,
        meaning: Callable[[str], Hashable | None],
        confidence: float = 0.97,
        advice: dict[str, Any] | None = None,
    ) -> None:
        self._meaning = meaning
        self._confidence = confidence
        self._advice = advice or {"nature": "volatile", "ttl_factor": 0.5, "value_factor": 2.0}
        self.asked: list[dict[str, Any]] = []

    def __call__(self, asked: Asked) -> Answer:
        document = json.loads(asked.user)
        self.asked.append(document)
        data = document["data"]
        if "query" in data:
            return self._canonical(data)
        if "one" in data:
            same = self._are_same(data["one"], data["other"])
            return answer_json({"same": same, "confidence": self._confidence})
        if "candidates" in data:
            first = data["candidates"][0]["number"]
            foreseen = [{"number": first, "probability": self._confidence}]
            return answer_json({"foreseen": foreseen})
        return answer_json(self._advice | {"confidence": self._confidence})

    def _canonical(self, data: dict[str, Any]) -> Answer:
        match = next(
            (
                candidate["number"]
                for candidate in data["candidates"]
                if self._are_same(data["query"], candidate["text"])
            ),
            0,
        )
        return answer_json({"match": match, "canonical": "", "confidence": self._confidence})

    def _are_same(self, one: str, other: str) -> bool:
        meaning = self._meaning(one)
        return meaning is not None and meaning == self._meaning(other)
