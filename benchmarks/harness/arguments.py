"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import FrameType
from typing import Never


def absolute(text: str) -> Path:
    """Absolute, because servers are started in another folder."""
    return Path(text).resolve()


def positive_seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 3600 seconds")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 1")
    return value


def share_of_writes(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def exit_on_signal(number: int, frame: FrameType | None) -> Never:
    """For SIGTERM: unwinds the stack, so that no server outlives the harness."""
    raise SystemExit(128 + number)
