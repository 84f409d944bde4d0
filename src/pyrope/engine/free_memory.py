"""What malloc keeps of memory that was freed, and giving it back to the system.

glibc gives each thread that allocates an arena of its own and keeps what is freed there. Measured
after 50,000 vectors of 128 dimensions were written and built: 10 to 30 MB in five types of index,
more than some of them take; HNSW_SQ8 with 50,000 vectors of 384 dimensions, 35 MB by its own
arithmetic, had made the process grow by 54 MB, with one arena for all threads and large blocks
always mapped by 46 MB. Threads here allocate rarely: what takes the time is native calls, not the
lock of an arena (ingest went at 8,100 to 8,500 vectors/s before, 9,400 after).
"""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8

MAPPED_BYTES = 4 * 2**20
"""Blocks from here on are mapped, and go back as soon as they are freed; left alone, glibc raises
this to 32 MB. Much lower, and buffers that come and go with each request would be mapped anew."""

_QUIET_SECONDS, _LONGEST_SECONDS = 0.5, 60.0


def keep_little() -> None:
    """Have malloc keep little of what is freed; to be called before there are threads.

    Nothing is done where the C library has no `mallopt`.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_ARENA_MAX, 1)
        tune(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def give_back_free_memory() -> None:
    """Have malloc return what it keeps; takes milliseconds, without the GIL.

    Meanwhile whoever allocates waits. Nothing is done where the C library has no `malloc_trim`.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class SettledWork:
    """Tells when work has left memory behind that nothing will use soon.

    Growing structures free the smaller ones that they come from, and merging a slice or answering a
    write frees its buffers. While that goes on, what is free is soon used again; once it has ended,
    it is worth giving back (after 100,000 vectors of 384 dimensions: 8 of 73 MB with FLAT, 76 of
    364 with IVF_FLAT).
    """

    def __init__(self) -> None:
        self._seen = 0
        self._pending = False
        self._changed_at = self._pending_since = 0.0

    def ended(self, done: int, now: float) -> bool:
        """Whether to give memory back now; to be asked several times a second.

        Args:
            done: a number that is another one whenever work has been done; 0 before there was any.
            now: monotonic time in seconds.
        """
        if done != self._seen:
            self._seen, self._changed_at = done, now
            if not self._pending:
                self._pending, self._pending_since = True, now
        if not self._pending:
            return False
        # Work without an end leaves something behind as well, of what was before.
        quiet = now - self._changed_at >= _QUIET_SECONDS
        self._pending = not quiet and now - self._pending_since < _LONGEST_SECONDS
        return not self._pending
