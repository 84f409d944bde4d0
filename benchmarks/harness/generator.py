"""The parent's end of the load generator: starts its process and hands it jobs."""

from __future__ import annotations

import contextlib
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.harness.load import Job, Result
from benchmarks.harness.paced import LoadError
from benchmarks.harness.worker import Message

REPOSITORY = Path(__file__).resolve().parents[2]


class LoadGenerator:
    """A process of its own, so that its work and its memory are not the harness's."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.harness.worker", str(theirs.fileno())],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            self._channel = ours.makefile("rwb")

    def run(self, job: Job, progress: Callable[[int, int], None] | None = None) -> Result:
        """Run one job to its end.

        Args:
            progress: called now and then with (answered, to be answered).

        Raises:
            LoadError: see there; also when the generator's process died.
            OSError: a connection to the server could not be made or failed.
        """
        try:
            pickle.dump(job, self._channel)
            self._channel.flush()
            while True:
                # Pickles from our own child.
                message: Message = pickle.load(self._channel)  # noqa: S301
                if isinstance(message, Result):
                    return message
                if isinstance(message, Exception):
                    raise message
                if progress is not None:
                    progress(*message)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise LoadError("the load generator's process ended by itself") from error

    def close(self) -> None:
        """End the process; a job under way is given up."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
