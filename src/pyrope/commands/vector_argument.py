"""The ways of giving a vector: FP32, VALUES, TEXT, ELE."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from pyrope.commands.options import parse_float, parse_integer
from pyrope.commands.spec import Argument
from pyrope.config import LimitSettings
from pyrope.errors import CommandError, DimensionError
from pyrope.service.index import OpenIndex

# The squared distance of two vectors is at most four times the larger squared norm: below a quarter
# of float32's range neither a norm, an inner product nor a distance overflows.
_SQUARED_NORM_MAX = float(np.finfo(np.float32).max) / 4
_FLOAT32_MAX = float(np.finfo(np.float32).max)

VECTOR_ARGUMENT = Argument(
    "vector",
    "oneof",
    arguments=(
        Argument("blob", "string", "FP32", summary="little-endian float32, 4 bytes a dimension"),
        Argument(
            "values",
            "block",
            "VALUES",
            arguments=(Argument("n", "integer"), Argument("value", "double", multiple=True)),
        ),
        Argument("text", "string", "TEXT", summary="embedded by the index's EMBEDDER"),
    ),
)
QUERY_ARGUMENT = Argument(
    "vector",
    "oneof",
    arguments=(*VECTOR_ARGUMENT.arguments, Argument("id", "string", "ELE")),
)


@dataclass(frozen=True, slots=True)
class VectorArgument:
    """A vector as an argument gave it.

    Attributes:
        blob: little-endian float32, finite; empty where `element` or `text` is given.
        element: the id whose vector it is.
        text: what is to be embedded (`pyrope.commands.text_vector.with_text`), and has no vector
            before that.
    """

    blob: bytes
    element: bytes | None = None
    text: bytes | None = None

    def resolve(self, index: OpenIndex) -> bytes:
        """The vector in bytes, of what is no text.

        Raises DimensionError; CommandError for an unknown id.
        """
        if self.element is not None:
            vector = index.vector(self.element)
            if vector is None:
                raise CommandError("element not found in set")
            return vector
        got = len(self.blob) // 4
        if got != index.spec.dim:
            raise DimensionError(
                f"Vector dimension mismatch - got {got} but index has {index.spec.dim}"
            )
        return self.blob


def parse_vector(
    args: list[bytes], position: int, limits: LimitSettings, *, element: bool
) -> tuple[VectorArgument, int]:
    """Read the vector argument at `position`.

    Args:
        element: whether ``ELE id`` is allowed.

    Returns:
        The vector, and the position after it.

    Raises:
        CommandError, DimensionError: it is not a vector.
    """
    if position + 1 >= len(args):
        raise CommandError(_expected(element=element))
    word = args[position].upper()
    if word == b"FP32":
        blob = args[position + 1]
        if len(blob) > 4 * limits.dim:
            raise DimensionError(
                f"invalid vector specification: {len(blob)} bytes, a vector has {4 * limits.dim} "
                "at the most"
            )
        check_blob(blob)
        return VectorArgument(blob), position + 2
    if word == b"VALUES":
        return _parse_values(args, position + 1, limits)
    if word == b"ELE" and element:
        return VectorArgument(b"", args[position + 1]), position + 2
    if word == b"TEXT":
        return VectorArgument(b"", text=args[position + 1]), position + 2
    raise CommandError(_expected(element=element))


def _expected(*, element: bool) -> str:
    words = "FP32, VALUES, TEXT or ELE" if element else "FP32, VALUES or TEXT"
    return f"invalid vector specification: {words} is expected"


def check_blob(blob: bytes) -> None:
    """Raises DimensionError or CommandError unless `blob` is one or more usable float32 values."""
    if not blob or len(blob) % 4:
        raise DimensionError(
            f"invalid vector specification: {len(blob)} bytes are not a multiple of 4, "
            "the size of a float32"
        )
    vector = np.frombuffer(blob, dtype="<f4")
    # The dot product is NaN or infinite if any value is, and costs a tenth of np.isfinite. Unlike
    # np.dot, np.vdot does not warn of an overflow.
    if not np.vdot(vector, vector) < _SQUARED_NORM_MAX:
        _explain(vector)


def check_rows(blob: bytes, dim: int) -> None:
    """Like `check_blob` for n·dim values: each row of its own must be usable."""
    if not blob or len(blob) % (4 * dim):
        raise DimensionError(
            f"Vector dimension mismatch - {len(blob)} bytes are not a multiple of {4 * dim}, "
            f"the size of a vector of dimension {dim}"
        )
    values = np.frombuffer(blob, dtype="<f4")
    if np.vdot(values, values) < _SQUARED_NORM_MAX:
        return
    rows = values.reshape(-1, dim)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.einsum("ij,ij->i", rows, rows)
    for row in np.flatnonzero(~(norms < _SQUARED_NORM_MAX)):
        _explain(rows[row])


def _explain(vector: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    """Raise the error that fits a vector whose squared norm is out of range."""
    if not np.isfinite(vector).all():
        raise CommandError("invalid vector specification: NaN and infinity are not allowed")
    raise CommandError(
        "invalid vector specification: the values are too large (their squares must add up to "
        f"less than {_SQUARED_NORM_MAX:.2g}, so that distances fit into float32)"
    )


def _parse_values(
    args: list[bytes], position: int, limits: LimitSettings
) -> tuple[VectorArgument, int]:
    count = parse_integer(args[position])
    if count is None or not 1 <= count <= limits.dim:
        raise CommandError(
            f"invalid vector specification: VALUES takes a number of values from 1 to {limits.dim}"
        )
    end = position + 1 + count
    if end > len(args):
        raise CommandError(
            f"invalid vector specification: VALUES announced {count} values, "
            f"{len(args) - position - 1} arguments follow"
        )
    values = array("f")
    for raw in args[position + 1 : end]:
        value = parse_float(raw)
        if value is None or abs(value) > _FLOAT32_MAX:
            raise CommandError(
                "invalid vector specification: each value must be a finite float32 number"
            )
        values.append(value)
    blob = np.asarray(values, dtype="<f4").tobytes()
    check_blob(blob)
    return VectorArgument(blob), end
