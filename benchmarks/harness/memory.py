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
