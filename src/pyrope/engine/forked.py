"""Writing a file from a forked process, as Redis' BGSAVE does.

hnswlib holds the GIL while it saves: 0.36 s for 100,000 vectors of 384 dimensions
(benchmarks/micro_engine.py), in which the server would answer nobody. A forked child has the index
as it was at the fork, thanks to copy-on-write memory, and a GIL of its own. The fork itself, which
copies page tables, keeps the GIL for 3 to 12 ms there.

A fork copies one thread only, so that whatever another thread had locked stays locked in the
child. The child therefore does one thing: it calls a function that takes no lock but malloc's
(which glibc makes usable in the child), and ends with `_exit`, which runs no handler, flushes no
buffer, and finalises nothing. Its signals are its own: the parent's handlers write to a
pipe that both would share.

One danger is on the parent's side. Libraries may run handlers before a fork, and OpenBLAS' stops
its threads there: a thread of ours that is inside a product that OpenBLAS has split over threads
then waits for ever (seen with NumPy 2.4; FAISS' own OpenBLAS, built with OpenMP, is not
affected). So the engines leave NumPy's `@` and `dot` alone, and a process that forks must start
with ``OPENBLAS_NUM_THREADS=1`` if anything else in it uses them in threads.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


def write_forked(
    write: Callable[[str], None], path: str, size: int | None, forked: Callable[[], None]
) -> None:
    """Call `write(path)` in a child, and wait for it.

    Args:
        write: code that locks nothing which other threads use.
        path: of the file.
        size: the length in bytes that the file must have; None: `write` raises if it could not
            write everything.
        forked: called in this thread once the child exists.

    Raises:
        OSError: no process could be made, the child failed, or the file is not `size` long.
    """
    # Blocked across the fork, so that no handler of the parent's runs in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; this module's essay is the answer.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _child(write, path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        forked()
    finally:
        _, status = os.waitpid(pid, 0)
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(f"the process that writes '{path}' ended with status {code}")
    if size is not None:
        check_size(path, size)


def check_size(path: str, size: int) -> None:
    """Raise OSError unless the file is `size` bytes long: hnswlib ignores errors of its stream."""
    written = Path(path).stat().st_size
    if written != size:
        raise OSError(f"'{path}' is {written} bytes long instead of {size}: is the disk full?")


def _child(write: Callable[[str], None], path: str) -> None:
    """Write, and end the process."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        write(path)
        status = 0
    finally:
        os._exit(status)
