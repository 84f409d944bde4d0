"""Vectors of unknown origin: what their similarity is worth, until it is known who made them."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.background import Background
from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.recognition import Recogniser, probes_for

Float32Vector = NDArray[np.float32]

_COUNT: Final = struct.Struct("<I")


class Origin:
    """Of the vectors of one index whose embedder has not been named.

    Args:
        dim: of the vectors.
    """

    def __init__(self, dim: int) -> None:
        self._background = Background(dim)
        probes = probes_for(dim)
        self._recogniser = None if probes is None else Recogniser(probes)
        self._last: PromptFacts | None = None

    def meet(self, facts: PromptFacts, vector: Float32Vector) -> str:
        """Look at a prompt and its vector; one that comes again at once is looked at once.

        Returns:
            The name of the embedder's prior, once it is recognised; ``""`` until then.
        """
        if facts is not self._last:
            self._last = facts
            self._background.observe(vector)
            if self._recogniser is not None:
                self._recogniser.observe(facts, vector)
        return "" if self._recogniser is None else self._recogniser.name

    def similarity(self, cosine: float) -> float:
        """What a cosine is worth: 0 for unrelated texts, 1 for the same."""
        return self._background.similarity(cosine)

    def could_be(self, name: str) -> bool:
        """Whether it could turn out to be that embedder."""
        return self._recogniser is not None and self._recogniser.candidate == name

    def encode(self) -> bytes:
        count, total = self._background.encode()
        return _COUNT.pack(count) + total

    def restore(self, state: bytes) -> None:
        """Take over what `encode` gave; recognition begins anew.

        Raises:
            ValueError: it is of another dimension.
        """
        (count,) = _COUNT.unpack_from(state)
        self._background.restore(count, state[_COUNT.size :])
