"""Pyrope as a process of its own, as users start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from servers import free_port


class PyropeProcess:
    """``python -m pyrope serve`` on a data directory."""

    def __init__(
        self,
        data_dir: Path,
        *flags: str,
        prepare: Callable[[], None] | None = None,
        wait: bool = True,
    ) -> None:
        self.port = free_port()
        self.log = data_dir.parent / f"{data_dir.name}-{self.port}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYROPE_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "pyrope", "serve", "--port", str(self.port),
                    "--http-port", "0", "--data-dir", str(data_dir), *flags,
                ],
                stderr=log,
                stdout=log,
                env=environment,
                preexec_fn=prepare,  # noqa: PLW1509 - sets a limit, before there are threads
            )  # fmt: skip
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return when PING is answered. Raises AssertionError, with the log, when that fails."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the server did not get ready:\n{self.output()}")

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, **{"protocol": 2, "socket_timeout": 60} | options)

    def kill(self) -> None:
        """Like a power cut for the process: SIGKILL."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """SIGTERM. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def pyrope_process(data_dir: Path, *flags: str, **options: Any) -> Iterator[PyropeProcess]:
    process = PyropeProcess(data_dir, *flags, **options)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.kill()


def await_merger(client: redis.Redis, index: str = "i") -> None:
    """Return when nothing of an index waits to be merged that is worth it."""
    merging = True
    while merging:
        told = client.execute_command("VECTOR.INFO", index)
        merging = bool(told[told.index(b"merging") + 1])
