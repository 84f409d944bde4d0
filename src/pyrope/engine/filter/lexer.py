"""Text to tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from pyrope.engine.filter.ast import Literal, Operator, Selector
from pyrope.errors import CommandError


class Paren(Enum):
    OPEN = "("
    CLOSE = ")"


Token: TypeAlias = Literal | Selector | Operator | Paren

_SPACE: Final = re.compile(r"[ \t\n\v\f\r]*")
_NUMBER: Final = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![0-9.eE])")
_NEGATIVE: Final = re.compile(r"-[0-9]")
_STRING: Final = re.compile(r"""(["'])((?:(?!\1)[^\\]|\\.)*+)\1""", re.DOTALL)
_SELECTOR: Final = re.compile(r"\.([A-Za-z0-9_-]+)")
_WORD: Final = re.compile(r"[A-Za-z]+")
_SYMBOL: Final = re.compile(r"\*\*|&&|\|\||[<>=!]=|[-+*/%<>!()]")
_ESCAPE: Final = re.compile(r"""\\([\\"'])""")

_WORDS: Final[dict[str, Token]] = {
    "not": Operator.NOT,
    "and": Operator.AND,
    "or": Operator.OR,
    "in": Operator.IN,
    "null": Literal(None),
}
_SYMBOLS: Final[dict[str, Token]] = {
    **{operator.value: operator for operator in Operator if not operator.value.isalpha()},
    "!": Operator.NOT,
    "&&": Operator.AND,
    "||": Operator.OR,
    "(": Paren.OPEN,
    ")": Paren.CLOSE,
}

_SHOWN: Final = 200
"""Characters of the client's own expression that an error repeats."""


def syntax_error(rest: str) -> CommandError:
    """The error of Redis 8, with what follows the fault."""
    return CommandError(f"syntax error in FILTER expression near: {rest[:_SHOWN]}")


@dataclass(slots=True)
class Lexer:
    """Tokens of `text`, one after another.

    A minus sign before a digit belongs to the number where an operand is due (at the start, after
    an operator or an opening parenthesis), and is the operator everywhere else.
    """

    text: str
    position: int = 0

    def tokens(self) -> Iterator[Token]:
        """Raises `CommandError`, naming the rest from the first character that starts no token."""
        operand_is_due = True
        while self._skip_space():
            token = self._next(operand_is_due=operand_is_due)
            operand_is_due = isinstance(token, Operator) or token is Paren.OPEN
            yield token

    def _next(self, *, operand_is_due: bool) -> Token:
        text, start = self.text, self.position
        first = text[start]
        if first.isdigit() or (operand_is_due and _NEGATIVE.match(text, start)):
            return Literal(self._number())
        if first in "\"'":
            return Literal(self._string())
        if first == "[":
            return Literal(self._tuple())
        if first == ".":
            return Selector(self._expect(_SELECTOR)[1])
        if first.isalpha():
            return self._known(_WORD, _WORDS)
        return self._known(_SYMBOL, _SYMBOLS)

    def _number(self) -> float:
        return float(self._expect(_NUMBER)[0])

    def _string(self) -> str:
        return _ESCAPE.sub(r"\1", self._expect(_STRING)[2])

    def _tuple(self) -> tuple[float | str, ...]:
        """Numbers and strings between brackets; a comma after the last is allowed, as in Redis."""
        items: list[float | str] = []
        start = self.position
        self.position += 1
        while True:
            following = self._skip_space()
            if following == "]":
                break
            if not following:
                raise syntax_error(self.text[start:])
            items.append(self._string() if following in "\"'" else self._number())
            following = self._skip_space()
            if following == ",":
                self.position += 1
            elif following != "]":
                raise syntax_error(self.text[self.position if following else start :])
        self.position += 1
        return tuple(items)

    def _known(self, pattern: re.Pattern[str], table: dict[str, Token]) -> Token:
        start = self.position
        token = table.get(self._expect(pattern)[0])
        if token is None:
            raise syntax_error(self.text[start:])
        return token

    def _expect(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.position)
        if match is None:
            raise syntax_error(self.text[self.position :])
        self.position = match.end()
        return match

    def _skip_space(self) -> str:
        """The character after white space, "" at the end."""
        match = _SPACE.match(self.text, self.position)
        if match is not None:  # always: the pattern matches the empty string
            self.position = match.end()
        return self.text[self.position : self.position + 1]
