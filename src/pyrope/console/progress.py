"""Something long with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import click

T = TypeVar("T")

_LOOK_INTERVAL_S = 0.1


def with_progress(
    label: str,
    work: Callable[[], T],
    progress: Callable[[], tuple[int, int]],
    cancel: Callable[[], None],
) -> T:
    """Do something in a thread, and show how far it is, on standard error.

    Args:
        label: before the bar; all that is shown where that is no terminal.
        work: what is done.
        progress: bytes done, and bytes in all; called from this thread.
        cancel: has `work` end early, when Ctrl-C is pressed.

    Raises:
        Exception: what `work` raised.
        KeyboardInterrupt: after Ctrl-C, when `work` has ended.
    """
    with (
        ThreadPoolExecutor(1, "work") as pool,
        click.progressbar(length=1, label=label, file=sys.stderr, show_eta=True) as bar,
    ):
        working = pool.submit(work)
        try:
            while not wait([working], _LOOK_INTERVAL_S).done:
                done, total = progress()
                if total:
                    bar.length = total
                    bar.update(min(done, total) - bar.pos)
        except BaseException:
            cancel()
            wait([working])
            raise
        result = working.result()
        bar.update((bar.length or 1) - bar.pos)
        return result
