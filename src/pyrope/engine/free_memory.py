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
# Blocks from here on are mapped, and go back as soon as they are freed; left alone, glibc raises
# this to 32 MB. Much lower, and buffers that come and go with each request would be mapped anew.
_MAPPED_BYTES = 4 * 2**20


def keep_little() -> None:
    """Have malloc keep little of what is freed; to be called before there are threads.

    Nothing is done where the C library has no `mallopt`.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_ARENA_MAX, 1)
        tune(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def give_back_free_memory() -> None:
    """Have malloc return what it keeps; takes milliseconds, without the GIL.

    Nothing is done where the C library has no `malloc_trim`.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
