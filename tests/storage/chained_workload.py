"""Appends to a chained log for a child to be killed in.

``python -m storage.chained_workload FOLDER`` appends batches for ever, and writes the head after
each to standard output once it is durable. With a number behind that, it kills itself when it has
written so many bytes of the next append.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pyrope.storage.chained_log import ChainedLog

ROTATE_BYTES = 4_000


class DyingLog(ChainedLog):
    """Ends its process in the middle of a write."""

    dies_after = -1

    def _write(self, data: bytes) -> None:
        if self.dies_after >= 0 and self._head.seq >= 5:
            os.write(self._descriptor, data[: self.dies_after])
            os.kill(os.getpid(), signal.SIGKILL)
        super()._write(data)


def main(folder: str, dies_after: str = "-1") -> None:
    log = DyingLog.open(Path(folder), rotate_bytes=ROTATE_BYTES, at=1.0)
    log.dies_after = int(dies_after)
    while True:
        seq = log.head.seq
        head = log.append([{"number": seq + n + 1} for n in range(1 + seq % 4)], 2.0)
        os.write(1, b"%d %b\n" % (head.seq, head.hash.encode()))


if __name__ == "__main__":
    main(*sys.argv[1:])
