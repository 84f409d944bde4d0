"""The load generator's process: jobs come in over a socket pair, messages go back.

Started by `benchmarks.harness.generator` with the socket's file descriptor as its argument; what
travels are pickles between a parent and its own child.
"""

from __future__ import annotations

import pickle
import socket
import sys
import time
from io import BufferedRWPair

from benchmarks.harness.load import Job, Result, run
from benchmarks.harness.paced import LoadError

PROGRESS_SECONDS = 0.5

Message = tuple[int, int] | Result | Exception
"""(answered, to be answered), or how the job ended."""


def serve(channel: BufferedRWPair) -> None:
    """Run jobs one after the other until the parent closes its end."""
    last = 0.0

    def send(message: Message) -> None:
        pickle.dump(message, channel)
        channel.flush()

    def progress(answered: int, count: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= PROGRESS_SECONDS:
            last = now
            send((answered, count))

    while True:
        try:
            job: Job = pickle.load(channel)  # noqa: S301 (from our own parent)
        except EOFError:
            return
        try:
            told = progress if job.seconds is None else None
            writes = () if job.writes is None else job.writes.recipe.encode()
            send(run(job, job.recipe.encode(), told, writes))
        except (LoadError, OSError) as error:
            send(error)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as end, end.makefile("rwb") as file:
        serve(file)
