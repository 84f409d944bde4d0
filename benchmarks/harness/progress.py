"""One line on standard error that says what is being measured."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """A line that is rewritten on a terminal, and written anew elsewhere when a step ends."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._steps = 0
        self._stream = stream
        self._live = stream.isatty()
        self._step = 0
        self._began = time.monotonic()
        self._what = ""

    def expect(self, steps: int) -> None:
        """How many times `begin` will be called."""
        self._steps = steps

    def begin(self, what: str) -> None:
        """The next piece of work begins."""
        self._step += 1
        self._what = what
        self._write("")

    def part(self, done: int, count: int) -> None:
        """How far the piece is."""
        self._write(f": {done:,} of {count:,} ({done / count:.0%})")

    def done(self, figure: str) -> None:
        """The piece is done, and this came out."""
        self._write(f": {figure}", end="\n")

    def _write(self, tail: str, end: str = "") -> None:
        if not (self._live or end):
            return
        elapsed = int(time.monotonic() - self._began)
        line = f"[{self._step}/{self._steps} {elapsed // 60}:{elapsed % 60:02}] {self._what}{tail}"
        clear = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{clear}{line}{end}")
        self._stream.flush()
