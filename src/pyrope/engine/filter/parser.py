"""Tokens to a postfix program, by Dijkstra's shunting yard (Mathematisch Centrum MR 35, 1961).

Redis uses the same algorithm but checks only that no operator lacks an operand in the end, and so
also takes ``1 2 +`` or ``()5``. Here an operand must stand where one is due.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pyrope.engine.filter.ast import PRECEDENCE, Instruction, Literal, Operator, Program, Selector
from pyrope.engine.filter.lexer import Lexer, Paren, Token, syntax_error
from pyrope.errors import CommandError

_PREFIXES: Final = (Operator.NOT, Paren.OPEN)


def parse(text: str, max_terms: int, max_nesting: int) -> Program:
    """Compile an expression.

    Args:
        max_terms: operands and operators together; a tuple is one operand.
        max_nesting: parentheses and operators that wait for their right-hand side at any point.
            It also bounds the operands that an evaluation holds at once (one more).

    Raises:
        CommandError: a syntax error or a limit.
    """
    yard = _Yard(text)
    for token in Lexer(text).tokens():
        yard.take(token)
        if len(yard.waiting) > max_nesting:
            raise CommandError(f"FILTER expression nests deeper than {max_nesting} levels")
        if len(yard.program) + len(yard.waiting) > max_terms:
            raise CommandError(f"FILTER expression has more than {max_terms} terms")
    return yard.finish()


class _Yard:
    """The postfix program so far, and what waits for its right-hand side (None: a parenthesis)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.program: list[Instruction] = []
        self.waiting: list[Operator | None] = []
        self.operand_is_due = True

    def take(self, token: Token) -> None:
        starts_operand = isinstance(token, Literal | Selector) or token in _PREFIXES
        if starts_operand != self.operand_is_due:
            # As in Redis, whose parser does not know where in the text its tokens came from.
            raise syntax_error(self.text)
        if isinstance(token, Literal | Selector):
            self.program.append(token)
            self.operand_is_due = False
        elif token in _PREFIXES:
            self.waiting.append(token if isinstance(token, Operator) else None)
        elif isinstance(token, Operator):
            self.settle(lambda earlier: _goes_first(earlier, token))
            self.waiting.append(token)
            self.operand_is_due = True
        else:
            self.settle(lambda _: True)
            if not self.waiting:
                raise syntax_error(self.text)
            self.waiting.pop()

    def settle(self, goes_first: Callable[[Operator], bool]) -> None:
        """Let the operators that wait take their operands, from the last to an open parenthesis."""
        while self.waiting:
            earlier = self.waiting[-1]
            if earlier is None or not goes_first(earlier):
                break
            self.waiting.pop()
            self.program.append(earlier)

    def finish(self) -> Program:
        self.settle(lambda _: True)
        if self.operand_is_due or self.waiting:
            raise syntax_error(self.text)
        return tuple(self.program)


def _goes_first(earlier: Operator, later: Operator) -> bool:
    """Whether the operator on the left of an operand takes it before the one on its right."""
    if later is Operator.POWER:
        return PRECEDENCE[earlier] > PRECEDENCE[later]
    return PRECEDENCE[earlier] >= PRECEDENCE[later]
