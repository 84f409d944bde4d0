"""What is plainly written in a prompt: its words, numbers, units, names and so on.

Found once for each text, in one pass over what stands between white space, and compared by guards
and features. Of a text longer than `READ_CHARACTERS` its beginning and its end are read, and of
what lies between only a digest is kept, so that a megabyte costs little more than a page.

Nothing here depends on an embedder. It is made for languages that put spaces between words; of
others, digits, symbols, quoted strings and the commonest negations are still found.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import pairwise
from typing import Final, NamedTuple
from unicodedata import normalize

from pyrope.semantic.vocabulary.dates import CAPITALISED, DATES
from pyrope.semantic.vocabulary.numbers import NUMBERS, ROMAN
from pyrope.semantic.vocabulary.stems import stem
from pyrope.semantic.vocabulary.units import AFTER_A_NUMBER, UNITS
from pyrope.semantic.vocabulary.words import (
    CONTRACTED_NEGATIONS,
    FUNCTION_WORDS,
    NEGATIONS,
    NEGATIONS_BEFORE_TO,
    NEGATIONS_INSIDE,
)

READ_CHARACTERS: Final = 8192
"""Of a longer text, so many are read: one half from its beginning, one from its end."""

_PUNCTUATION: Final = ".,!?;:()[]{}\"'“”‘’«»„…`*¿¡。，、？！；：（）「」『』"
_NUMBER: Final = re.compile(
    r"(?P<before>[$€£₹¥])?(?P<sign>[-−])?(?P<digits>\d[\d,_]*(?:\.\d+)?|\.\d+)"
    r"(?P<after>%|°[cf]?|[$€£₹¥]|[^\W\d_]{1,12}(?:/[^\W\d_]{1,4})?)?"
)
_PARTS: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d[\d,]*(?:\.\d+)?")
_CAMEL: Final = re.compile(r"[^\W\d_A-Z][A-Z]")
_DOTTED: Final = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_SYMBOLS: Final = re.compile(
    r"[!=<>]{2,}|[^\w\s" + re.escape(_PUNCTUATION) + r"/\-–—_@$€£₹¥°%&|]+|[&|]{2,}"
)
_QUOTED: Final = re.compile(
    r"\"{1,2}([^\"\n]{1,200})\"{1,2}|“([^“”]{1,200})”|«([^«»]{1,200})»|„([^„“”]{1,200})[“”]|`([^`]{1,200})`"
    r"|(?<!\w)'([^'\n]{1,200})'(?!\w)|「([^「」]{1,200})」"
)
_PIECES: Final = re.compile(r"(?s:.{1,256}(?=\s)|.{1,256})")
_QUOTES: Final = frozenset("\"“«„`'「")
_PUNCTUATED: Final = str.maketrans({"’": "'", "‘": "'", "‐": "-", "‑": "-"})
_MAGNITUDES: Final = {"k": 1e3, "m": 1e6, "bn": 1e9, "b": 1e9, "million": 1e6, "billion": 1e9}
# Words that say something beside what they mean.
_TELLING: Final = frozenset().union(
    DATES, UNITS, AFTER_A_NUMBER, NUMBERS, ROMAN, NEGATIONS, CONTRACTED_NEGATIONS
)
_ARROWS: Final = frozenset(("->", "=>", "→", "-->", "==>"))


class PromptFacts(NamedTuple):
    """What was found in one text. All words are case-folded.

    Attributes:
        words: in order, numbers and identifiers among them.
        stems: of the words, endings cut off, in the same order.
        stem_set: of the same.
        content: the stems, in order, that are no function words.
        content_set: of the same.
        negations: how many words turn a sentence round.
        numbers: as decimal numbers without trailing zeros, sorted; ordinals end in ``th``.
        units: dimension and unit.
        dates: months, days of the week, *today* and its like.
        quotes: what is in quotation marks, white space collapsed.
        identifiers: versions, paths, file names, addresses, names with digits or underscores.
        symbols: runs of characters that are neither of words nor punctuation (``#``, ``==``).
        names: words with a capital that do not begin a sentence.
        openers: words with a capital that do.
        acronyms: initials of names that stand side by side.
        question: the question word that tells what kind of answer is wanted, or ``""``.
        length: characters of the whole text.
        unread: a digest of what was not read, ``b""`` where all was.
    """

    words: tuple[str, ...]
    stems: tuple[str, ...]
    stem_set: frozenset[str]
    content: tuple[str, ...]
    content_set: frozenset[str]
    negations: int
    numbers: tuple[str, ...]
    units: frozenset[tuple[str, str]]
    dates: frozenset[str]
    quotes: frozenset[str]
    identifiers: frozenset[str]
    symbols: frozenset[str]
    names: frozenset[str]
    openers: frozenset[str]
    acronyms: frozenset[str]
    question: str
    length: int
    unread: bytes


def facts_of(text: str) -> PromptFacts:
    """Read a text: 40 us for a question, 2 ms for the longest part that is read."""
    length = len(text)
    text, unread = _cut(text, READ_CHARACTERS)
    if not text.isascii():
        # A character may become 18. What was cut already has a line feed more.
        text, grown = _cut(_normal_form(text), READ_CHARACTERS + 1)
        text, unread = text.translate(_PUNCTUATED), unread + grown
    return _Reader(text).facts(length, unread)


def _cut(text: str, most: int) -> tuple[str, bytes]:
    """A text of so many characters at the most, and a digest of what was between its ends."""
    if len(text) <= most:
        return text, b""
    half = READ_CHARACTERS // 2
    between = text[half:-half].encode(errors="replace")
    return f"{text[:half]}\n{text[-half:]}", blake2b(between, digest_size=16).digest()


def _normal_form(text: str) -> str:
    """Unicode normalisation form KC, piece by piece.

    Putting a run of marks in order takes time by the square of its length: 90 ms for as many as are
    read (CPython 3.11). Nothing is composed across white space, at which texts are divided where
    they have any.
    """
    return "".join([normalize("NFKC", piece) for piece in _PIECES.findall(text)])


class _Reader:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[str] = []
        self._numbers: list[str] = []
        self._units: set[tuple[str, str]] = set()
        self._dates: set[str] = set()
        self._identifiers: set[str] = set()
        self._symbols: set[str] = set()
        self._names: set[str] = set()
        self._openers: set[str] = set()
        self._initials = ""
        self._acronyms: set[str] = set()
        self._negations = 0
        self._capitals = 0
        self._opening = True
        self._after_number = False

    def facts(self, length: int, unread: bytes) -> PromptFacts:
        text = self._text
        for chunk in text.split():
            if chunk.isascii() and chunk.isalpha() and chunk.islower() and chunk not in _TELLING:
                # Most words; what `_word` comes to with them.
                if self._initials:
                    self._end_of_name()
                self._opening = self._after_number = False
                self._words.append(chunk)
            else:
                self._read(chunk)
        self._end_of_name()
        words = tuple(self._words)
        stems = tuple(map(stem, words))
        content = tuple(
            [s for s, word in zip(stems, words, strict=True) if word not in FUNCTION_WORDS]
        )
        if not NEGATIONS_BEFORE_TO.isdisjoint(words):
            self._negations += sum(
                after == "to" and word in NEGATIONS_BEFORE_TO for word, after in pairwise(words)
            )
        if not text.isascii():
            self._negations += sum(text.count(sign) for sign in NEGATIONS_INSIDE)
        # In a text that is all capitals they tell nothing.
        if 2 * self._capitals > len(words) + 2:
            self._names.clear()
        return PromptFacts(
            words=words,
            stems=stems,
            stem_set=frozenset(stems),
            content=content,
            content_set=frozenset(content),
            negations=self._negations,
            numbers=tuple(sorted(self._numbers)),
            units=frozenset(self._units),
            dates=frozenset(self._dates),
            quotes=_quotes(text),
            identifiers=frozenset(self._identifiers),
            symbols=frozenset(self._symbols),
            names=frozenset(self._names),
            openers=frozenset(self._openers),
            acronyms=frozenset(self._acronyms),
            question=_question(words),
            length=length,
            unread=unread,
        )

    def _read(self, chunk: str) -> None:
        if chunk.isalpha():
            self._word(chunk)
            return
        core = chunk.strip(_PUNCTUATION)
        if core.isalpha():
            if chunk[0] == "." and chunk[1] == core[0]:
                self._identifiers.add(core.casefold())
            if chunk[0] != core[0]:
                self._end_of_name()
            self._word(core)
            if chunk[-1] != core[-1]:
                self._end_of_name()
        elif core:
            self._odd(core)
            self._end_of_name()
        if chunk[-1] in ".!?。？！":
            # An abbreviation with dots inside ends no sentence.
            self._opening = "." not in chunk[:-1] or chunk[-1] != "."
        for symbols in _SYMBOLS.findall(chunk):
            self._symbols.add(symbols)

    def _word(self, word: str) -> None:
        low = word.casefold()
        opening, self._opening = self._opening, False
        capital = word[0].isupper()
        if capital:
            self._capitals += 1
            if len(word) == 1 and not opening and low != "i":
                self._letter(word, low)
                return
            self._capitalised(word, low, opening=opening)
        elif self._initials:
            self._end_of_name()
        if not word.islower() and _CAMEL.search(word) is not None:
            self._identifiers.add(low)
        if low in DATES and (low not in CAPITALISED or (capital and not opening)):
            self._dates.add(DATES[low])
        elif low in UNITS:
            self._units.add(UNITS[low])
        elif self._after_number and low in AFTER_A_NUMBER:
            self._units.add(AFTER_A_NUMBER[low])
        elif low in NUMBERS:
            self._numbers.append(NUMBERS[low])
        elif low in ROMAN and word.isupper() and not opening:
            self._numbers.append(ROMAN[low])
        elif low in NEGATIONS or low in CONTRACTED_NEGATIONS:
            self._negations += 1
        self._after_number = False
        self._words.append(low)

    def _letter(self, letter: str, low: str) -> None:
        """A capital that stands alone, for something: *from A to B*, *20 C*. It stays one."""
        self._names.add(letter)
        self._words.append(letter)
        if self._after_number and low in AFTER_A_NUMBER:
            self._units.add(AFTER_A_NUMBER[low])
        self._after_number = False
        self._end_of_name()

    def _capitalised(self, word: str, low: str, *, opening: bool) -> None:
        abbreviation = len(word) > 1 and word.isupper()
        if low in FUNCTION_WORDS and not abbreviation:
            self._end_of_name()
            return
        (self._openers if opening and not abbreviation else self._names).add(low)
        self._initials += low[0]

    def _odd(self, core: str) -> None:
        """What is not all letters: a number, a contraction, an identifier, words run together."""
        match = _NUMBER.fullmatch(core.casefold())
        if match is not None and self._number(match):
            self._words.append(core.casefold())
            self._opening = False
            return
        if _DOTTED.fullmatch(core) is not None:
            self._word(core.replace(".", ""))
            return
        low = core.casefold().translate(_PUNCTUATED)
        plain = low.replace("'", "").replace("-", "")
        if low in UNITS:
            self._units.add(UNITS[low])
            self._words.append(low)
        elif plain.isalpha():
            for part in low.replace("-", " ").split():
                self._contraction(part, core)
        elif _is_identifier(core):
            self._identifiers.add(low)
            self._words.append(low)
            self._opening = False
        else:
            if core in _ARROWS:
                self._words.append("to")
            for part in _PARTS.findall(core):
                if part[0].isdigit():
                    self._numbers.append(_canonical(part))
                    self._words.append(part)
                else:
                    self._word(part)
        self._after_number = False

    def _contraction(self, low: str, core: str) -> None:
        if "'" not in low:
            self._word(low if core[:1].islower() else low.capitalize())
            return
        if low.endswith("n't"):
            self._negations += 1
        head = low.strip("'")
        opening, self._opening = self._opening, False
        if head.endswith("'s"):
            head = head[:-2]
            if head and core[0].isupper():
                self._capitals += 1
                self._capitalised(core[: len(head)], head, opening=opening)
        self._words.append(head or low)

    def _number(self, match: re.Match[str]) -> bool:
        """Note a number and what is written with it; False if it is none after all."""
        after = match["after"] or ""
        digits = match["digits"]
        value = _canonical(digits)
        if after in ("st", "nd", "rd", "th"):
            value += "th"
        elif after in ("k", "bn") or (after in ("m", "b") and match["before"]):
            value = _canonical(f"{float(value) * _MAGNITUDES[after]:.6f}")
        elif after in UNITS:
            self._units.add(UNITS[after])
        elif after in AFTER_A_NUMBER:
            self._units.add(AFTER_A_NUMBER[after])
        elif after and after not in ("s", "x", "am", "pm"):
            return False
        elif after in ("am", "pm"):
            value += after
        if match["sign"]:
            value = "-" + value
        if match["before"]:
            self._units.add(UNITS[match["before"]])
        self._numbers.append(value)
        self._after_number = not after
        return True

    def _end_of_name(self) -> None:
        if len(self._initials) > 1:
            self._acronyms.add(self._initials[:8])
        self._initials = ""


def _canonical(digits: str) -> str:
    """``1,000.00`` as ``1000``, ``007`` as ``7``."""
    plain = digits.replace(",", "").replace("_", "")
    whole, point, fraction = plain.partition(".")
    # 1.10 is not 1.1 where versions are meant.
    if not fraction.strip("0"):
        fraction = ""
    return (whole.lstrip("0") or "0") + (point + fraction if fraction else "")


def _is_identifier(core: str) -> bool:
    if "_" in core or "@" in core or "\\" in core or core.startswith("--"):
        return True
    letters = any(c.isalpha() for c in core)
    digits = any(c.isdigit() for c in core)
    return letters and (
        digits or core.count("/") > 1 or "::" in core or "://" in core or _is_file(core)
    )


# Of a file, or of a name after a dot in a program.
_ENDING: Final = 9


def _is_file(core: str) -> bool:
    """``setup.py``, ``example.org``: a dot between lower-case letters, and a short ending."""
    head, dot, ending = core.rpartition(".")
    return bool(dot and head) and ending.isalpha() and ending.islower() and len(ending) < _ENDING


def _quotes(text: str) -> frozenset[str]:
    if _QUOTES.isdisjoint(text):
        return frozenset()
    return frozenset(
        " ".join(part.casefold().strip(_PUNCTUATION + " ").split())
        for parts in _QUOTED.findall(text)
        for part in parts
        if part
    )


_KINDS: Final = {
    "when": "when",
    "where": "where",
    "who": "who",
    "whom": "who",
    "whose": "who",
    "why": "why",
    "how": "how",
    "wann": "when",
    "wo": "where",
    "wer": "who",
    "warum": "why",
    "wieso": "why",
    "weshalb": "why",
    "quand": "when",
    "où": "where",
    "qui": "who",
    "pourquoi": "why",
    "cuándo": "when",
    "dónde": "where",
    "quién": "who",
    "quiénes": "who",
    "quando": "when",
    "dove": "where",
    "perché": "why",
}
_MEASURES: Final = frozenset(
    ("many", "much", "long", "old", "far", "often", "tall", "big", "fast", "deep", "heavy", "high")
)


def _question(words: tuple[str, ...]) -> str:
    """The first question word, if it stands near the beginning."""
    for place, word in enumerate(words[:4]):
        kind = _KINDS.get(word)
        if kind is None:
            continue
        if kind == "how" and place + 1 < len(words) and words[place + 1] in _MEASURES:
            return f"how {words[place + 1]}"
        return kind
    return ""
