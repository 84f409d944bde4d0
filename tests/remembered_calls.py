"""Prompts, responses and calls that tests of remembered responses share, with the index ``i``."""

from __future__ import annotations

from typing import Any

import numpy as np
import redis

from tenancy import as_map

QUESTION, REPHRASED = "How do plants make food?", "How do plants make their own food?"
ANSWER = "By photosynthesis: light, water and carbon dioxide."
ROW, NEAR, FAR = (np.array(row, "<f4").tobytes() for row in ([1, 0, 0], [1, 0.1, 0], [0, 0, 1]))


def remember(client: redis.Redis, prompt: str, response: Any, *words: Any) -> bytes:
    """With the vector of the question, unless another is given."""
    vector = () if "FP32" in words else ("FP32", ROW)
    id_: bytes = client.execute_command("VECTOR.REMEMBER", "i", prompt, response, *vector, *words)
    return id_


def recall(client: redis.Redis, prompt: str, *words: Any) -> Any:
    vector = () if "FP32" in words else ("FP32", ROW)
    return client.execute_command("VECTOR.RECALL", "i", prompt, *vector, *words)


def told(client: redis.Redis, prompt: str, *words: Any) -> tuple[Any, dict[str, Any]]:
    response, info = recall(client, prompt, *words, "WITHINFO")
    return response, as_map(info)


def stats(client: redis.Redis) -> dict[str, Any]:
    return as_map(as_map(client.execute_command("VECTOR.CACHE", "STATS", "i"))["remembered"])


def lead_a_life(wire: redis.Redis, index: str, dim: int) -> None:
    """One response is recalled in three ways and said to be right and wrong, one is forgotten."""
    here, there = (np.eye(dim, dtype="<f4")[axis].tobytes() for axis in (0, 1))

    def call(verb: str, *words: Any) -> Any:
        return wire.execute_command(f"VECTOR.{verb}", index, *words)

    bad = call("REMEMBER", "How tall is it?", "very", "FP32", here, "COST", 1.5)
    call("REMEMBER", "Is it 5 m tall?", "yes", "FP32", there)
    call("RECALL", "how tall is it?", "FP32", here)
    call("RECALL", "How tall is it then?", "FP32", here, "THRESHOLD", 0.5)
    call("RECALL", "Is it 6 m tall?", "FP32", there, "THRESHOLD", 0.5)
    call("RECALL", "How very tall is it?", "FP32", here, "MAXERROR", 0)
    call("FEEDBACK", bad, "GOOD", "PROMPT", "How tall is it?")
    call("FEEDBACK", bad, "BAD", "PROMPT", "How tall is it?")
    call("FORGET", "PROMPT", "Is it 5 m tall?")
