"""What a run ran on, for its report."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path

from benchmarks.harness.memory import filesystem

_PACKAGES = ("faiss-cpu", "hnswlib", "hiredis", "lmdb", "numpy", "uvloop")


def environment(folder: Path) -> dict[str, str]:
    """Date, machine and versions, by name.

    Args:
        folder: where the servers keep their data.
    """
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "system": f"{platform.system()} {platform.release()}, data on {filesystem(folder)}",
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{one} {importlib.metadata.version(one)}" for one in _PACKAGES),
    }
