"""What the kernel says about a process: its memory and its CPU time (Linux, /proc)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in bytes.

    Attributes:
        anonymous: heap, stacks and other pages that no file backs (RssAnon).
        total: those, plus resident pages of mapped files and shared memory (VmRSS).
    """

    anonymous: int
    total: int

    @property
    def mapped(self) -> int:
        """What files back, and the system takes back when it needs to."""
        return self.total - self.anonymous


def resident(pid: int) -> Memory:
    """Resident memory of one process, from ``/proc/PID/status``.

    Raises:
        ProcessLookupError: it has ended, and its parent has not looked yet.
        FileNotFoundError: no such process.
    """
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = int(value[:-3]) * 1024
    if "RssAnon" not in fields:
        raise ProcessLookupError(f"process {pid} has ended")
    return Memory(anonymous=fields["RssAnon"], total=fields["VmRSS"])


_UNNAMED = 4
"""Fields of a mapping's line in smaps, beside its addresses, where nothing is mapped."""

_RESERVED_BYTES, _RESERVED_SHARE = 64 * 2**20, 0.25
"""Size of a mapping, and the share of it that is resident at most, by which buffers are known."""


def library_buffers(pid: int) -> int:
    """Resident bytes of mappings that are hardly used: what BLAS libraries multiply matrices in.

    OpenBLAS, of which NumPy and FAISS bring one each, maps 128 or 256 MB for each thread that
    multiplies at the same time as others, and keeps what it has touched. That is paid once, by the
    process, whatever it holds.
    """
    found = size = 0
    anonymous = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            start, _, end = first.partition("-")
            size = int(end, 16) - int(start, 16)
            anonymous = len(rest) == _UNNAMED
        elif first == "Anonymous:" and anonymous and size >= _RESERVED_BYTES:
            resident_bytes = int(rest[0]) * 1024
            found += resident_bytes if resident_bytes < _RESERVED_SHARE * size else 0
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, that all threads of a process have used so far.

    Raises:
        FileNotFoundError: no such process.
    """
    stat = Path(f"/proc/{pid}/stat").read_text()
    # The second field is the command's name in parentheses and may hold anything; fields 14 and
    # 15 of proc(5) are the 12th and 13th after it.
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def filesystem(path: Path) -> str:
    """Type of the file system that holds `path`: an fsync on tmpfs costs nothing."""
    resolved = str(path.resolve())
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, fstype, *_ = line.split()
        prefix = mount if mount.endswith("/") else mount + "/"
        if (resolved + "/").startswith(prefix) and len(prefix) >= len(best):
            best, kind = prefix, fstype
    return kind
