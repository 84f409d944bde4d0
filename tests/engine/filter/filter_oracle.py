"""Filter expressions as trees: to text, and evaluated one element at a time in plain Python.

The evaluator knows nothing of the lexer, the parser, or columns; it is what docs/filters.md says,
written down once more in the most pedestrian way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st

from pyrope.engine.attributes import JsonValue


@dataclass(frozen=True)
class Constant:
    value: float | str | tuple[float | str, ...] | None


@dataclass(frozen=True)
class Field:
    name: str


@dataclass(frozen=True)
class Not:
    operand: Node


@dataclass(frozen=True)
class Binary:
    operator: str
    left: Node
    right: Node


Node: TypeAlias = Constant | Field | Not | Binary

BINDING = {
    "**": 5,
    **dict.fromkeys(("*", "/", "%"), 4),
    **dict.fromkeys(("+", "-"), 3),
    **dict.fromkeys((">", ">=", "<", "<=", "==", "!=", "in"), 2),
    "and": 1,
    "or": 0,
}


class NoMatchError(Exception):
    """The element cannot match: a field is missing, or a value has the wrong type."""


# -- to text ----------------------------------------------------------------------------


def render(node: Node) -> str:
    """The expression with no more parentheses than it needs."""
    if isinstance(node, Constant):
        if isinstance(node.value, tuple):
            return "[" + ", ".join(render(Constant(item)) for item in node.value) + "]"
        if isinstance(node.value, str):
            return '"' + node.value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return "null" if node.value is None else f"{node.value:.17g}"
    if isinstance(node, Field):
        return f".{node.name}"
    if isinstance(node, Not):
        return "not " + _inside(node.operand, 6)
    binding = BINDING[node.operator]
    from_right = node.operator == "**"
    left = _inside(node.left, binding + from_right)
    right = _inside(node.right, binding + (not from_right))
    return f"{left} {node.operator} {right}"


def _inside(node: Node, binding: int) -> str:
    """The operand of something that binds so tightly (6: `not`)."""
    binds = BINDING[node.operator] if isinstance(node, Binary) else 7
    # Redis 8 does not take `not not x`.
    if binds < binding or (isinstance(node, Not) and binding == 6):
        return f"({render(node)})"
    return render(node)


# -- evaluated --------------------------------------------------------------------------


def matches(node: Node, attributes: Mapping[str, JsonValue] | None) -> bool:
    """Whether an element matches; `attributes` is None for an element that has none."""
    if attributes is None:
        return False
    try:
        with np.errstate(all="ignore"):
            return truth(evaluate(node, attributes))
    except NoMatchError:
        return False


def evaluate(node: Node, attributes: Mapping[str, JsonValue]) -> JsonValue:
    if isinstance(node, Constant):
        return list(node.value) if isinstance(node.value, tuple) else node.value
    if isinstance(node, Field):
        if node.name not in attributes or _holds_object(attributes[node.name]):
            raise NoMatchError
        value = attributes[node.name]
        return float(value) if isinstance(value, (bool, int)) else value
    if isinstance(node, Not):
        return float(not truth(evaluate(node.operand, attributes)))
    left = evaluate(node.left, attributes)
    right = evaluate(node.right, attributes)
    return float(_apply(node, left, right))


def _apply(node: Binary, left: JsonValue, right: JsonValue) -> float | bool:
    match node.operator:
        case "and":
            return truth(left) and truth(right)
        case "or":
            return truth(left) or truth(right)
        case "==":
            return equal(left, right)
        case "!=":
            return not equal(left, right)
        case "in":
            return _contained(node, left, right)
    if not isinstance(left, float) or not isinstance(right, float):
        raise NoMatchError
    return _arithmetic(node.operator, left, right)


def _arithmetic(operator: str, left: float, right: float) -> float | bool:
    one, other = np.array([left]), np.array([right])
    function = {
        "**": np.power,
        "*": np.multiply,
        "/": np.divide,
        "%": np.fmod,
        "+": np.add,
        "-": np.subtract,
        ">": np.greater,
        ">=": np.greater_equal,
        "<": np.less,
        "<=": np.less_equal,
    }[operator]
    return float(function(one, other)[0])


def truth(value: JsonValue) -> bool:
    return True if isinstance(value, list) else bool(value)


def equal(left: JsonValue, right: JsonValue) -> bool:
    if left is None or right is None:
        return left is right
    if isinstance(left, list) or type(left) is not type(right):
        raise NoMatchError
    return left == right


def _contained(node: Binary, value: JsonValue, container: JsonValue) -> bool:
    if not isinstance(container, list):
        raise NoMatchError
    items = [float(i) if isinstance(i, (bool, int)) else i for i in container]
    if isinstance(node.right, Constant):
        if items and value is not None and type(value) not in {type(item) for item in items}:
            raise NoMatchError
    elif isinstance(value, list) and isinstance(node.left, Field):
        raise NoMatchError
    return any(
        type(item) is type(value) and item == value for item in items if not isinstance(item, list)
    )


def _holds_object(value: JsonValue) -> bool:
    if isinstance(value, list):
        return any(_holds_object(item) for item in value)
    return isinstance(value, dict)


# -- random ones ------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d-e", "f_1", "9")

numbers = st.one_of(
    st.integers(-4, 12).map(float), st.sampled_from([0.5, -2.25, 1e9, 1e300, 1980.0, 3e-7])
)
strings = st.sampled_from(["", "sf", "noir", "5", 'say "hi"', "C:\\new", "é", "x" * 80, "y" * 80])
scalars = st.one_of(numbers, st.integers(-4, 12), strings, st.booleans(), st.none())
json_values: st.SearchStrategy[JsonValue] = st.one_of(
    scalars,
    st.lists(scalars, max_size=4),
    st.sampled_from([{"k": 1}, [[1.0], "sf"], [1.0, {"k": 1}], [[{"k": 1}]]]),
)
attributes = st.one_of(
    st.none(), st.dictionaries(st.sampled_from(NAMES), json_values, max_size=len(NAMES))
)
fields = st.sampled_from(NAMES).map(Field)
tuples = st.lists(st.one_of(numbers, strings), max_size=4).map(tuple)
long_tuples = st.tuples(tuples, st.integers(13, 40)).map(
    lambda drawn: drawn[0] + tuple(float(n) for n in range(100, 100 + drawn[1]))
)
leaves: st.SearchStrategy[Node] = st.one_of(
    fields, fields, st.one_of(numbers, strings, st.none(), tuples).map(Constant)
)


def _larger(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        children.map(Not),
        st.builds(Binary, st.sampled_from(sorted(BINDING)), children, children),
        # `in` seldom gets a tuple by chance.
        st.builds(Binary, st.just("in"), children, st.one_of(tuples, long_tuples).map(Constant)),
        st.builds(Binary, st.just("in"), children, fields),
        st.builds(Binary, st.sampled_from(("and", "or")), children, children),
    )


expressions = st.recursive(leaves, _larger, max_leaves=10)
