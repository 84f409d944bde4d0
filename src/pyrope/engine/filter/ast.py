"""What a filter expression is made of once it is parsed: a postfix program.

Postfix rather than a tree, so that neither compiling nor running one recurses: an expression may
chain as many operators as the limit on its length allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

Constant: TypeAlias = "float | str | tuple[float | str, ...] | None"
"""A number, a string, null, or a tuple of numbers and strings."""


@dataclass(frozen=True, slots=True)
class Literal:
    value: Constant


@dataclass(frozen=True, slots=True)
class Selector:
    """The value of a field, `.name` in an expression."""

    name: str


class Operator(Enum):
    NOT = "not"
    POWER = "**"
    MULTIPLY = "*"
    DIVIDE = "/"
    MODULO = "%"
    ADD = "+"
    SUBTRACT = "-"
    GREATER = ">"
    GREATER_EQUAL = ">="
    LESS = "<"
    LESS_EQUAL = "<="
    EQUAL = "=="
    NOT_EQUAL = "!="
    IN = "in"
    AND = "and"
    OR = "or"


PRECEDENCE: dict[Operator, int] = {
    Operator.NOT: 6,
    Operator.POWER: 5,
    Operator.MULTIPLY: 4,
    Operator.DIVIDE: 4,
    Operator.MODULO: 4,
    Operator.ADD: 3,
    Operator.SUBTRACT: 3,
    Operator.GREATER: 2,
    Operator.GREATER_EQUAL: 2,
    Operator.LESS: 2,
    Operator.LESS_EQUAL: 2,
    Operator.EQUAL: 2,
    Operator.NOT_EQUAL: 2,
    Operator.IN: 2,
    Operator.AND: 1,
    Operator.OR: 0,
}
"""Higher binds tighter, as in Redis 8. `**` groups from the right, all other operators from the
left."""

Instruction: TypeAlias = Literal | Selector | Operator

Program: TypeAlias = tuple[Instruction, ...]
"""Operands push themselves; an operator takes its one or two and pushes its result."""
