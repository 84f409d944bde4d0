"""The servers under measurement: how each is started, spoken to, stopped and cleaned up."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import hiredis

from benchmarks.harness.generator import REPOSITORY
from benchmarks.harness.memory import Memory, cpu_seconds, resident
from benchmarks.harness.sweep import EF, NPROBE, Effort
from benchmarks.harness.wire import Client, Field, Template

INDEX = b"bench"
K = 10
M = 16
EF_CONSTRUCTION = 200

START_SECONDS = 600.0
STOP_SECONDS = 300.0
CALL_SECONDS = 3600.0
"""Upper bounds, so that a server that hangs ends the step and not the day: linking a million
vectors of 384 dimensions into a graph takes ten minutes or so, saving it some seconds."""

_POLL_SECONDS = 0.002

_BLOCK_BYTES = 512
"""The unit of st_blocks, whatever the file system's own."""

_FIRST_OUTGOING_PORT = 32_768
"""Linux' default of net.ipv4.ip_local_port_range."""


class ServerError(Exception):
    """A server that did not start, did not stop, or lost what it was given."""


class Server(ABC):
    """One server on 127.0.0.1, in a process group and a folder of its own."""

    def __init__(self, label: str, folder: Path) -> None:
        """Make its folders; nothing is started.

        Args:
            folder: holds its data and its logs; made here, removed by the caller.
        """
        self.label = label
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    # -- what differs -----------------------------------------------------------------------

    settings: str
    """How it is configured, for the report."""

    effort: Effort | None
    """The search option that trades recall for speed; None: there is none."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def command_line(self) -> list[str]: ...

    @abstractmethod
    def create(self, dim: int) -> None:
        """Make the empty index, where that is a step of its own."""

    @abstractmethod
    def add(self) -> Template:
        """Store one vector under its row number."""

    @abstractmethod
    def search(self, effort: int | None) -> Template:
        """Ids of the K nearest, nearest first; None: at the effort that the server chooses."""

    @abstractmethod
    def settle(self) -> None:
        """Return when every stored vector is part of the graph."""

    @abstractmethod
    def count(self) -> int:
        """Vectors stored."""

    # -- what does not -----------------------------------------------------------------------

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError(f"{self.label} is not running")
        return self._process.pid

    def start(self) -> float:
        """Start the process.

        Returns:
            Seconds from exec to the first answer to PING that is not LOADING.

        Raises:
            ServerError: it ended by itself, or was not ready in time.
        """
        self.port = _free_port()
        self._starts += 1
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYROPE_")}
        with self._log.open("wb") as output:
            began = time.perf_counter()
            self._process = subprocess.Popen(
                self.command_line(),
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while not self._answers():
            if self._process.poll() is not None:
                self._process = None
                raise ServerError(f"{self.label} ended before it was ready:\n{self.log_tail()}")
            if time.perf_counter() - began > START_SECONDS:
                self.kill()
                raise ServerError(f"{self.label} was not ready after {START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - began

    def stop(self) -> float:
        """SIGTERM, and wait.

        Returns:
            Seconds that it took to end.

        Raises:
            ServerError: it had to be killed, or its exit status was not 0.
        """
        process = self._process
        if process is None:
            raise ServerError(f"{self.label} is not running")
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{self.label} ignored SIGTERM for {STOP_SECONDS:.0f} s") from None
        finally:
            self.kill()
        if status != 0:
            raise ServerError(f"{self.label} ended with status {status} after SIGTERM")
        return time.perf_counter() - began

    def kill(self) -> None:
        """End it and whatever it started, at once. Does nothing if it is not running."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def client(self) -> Client:
        """A new connection.

        Raises:
            ServerError: it is not running; another server may have its port by now.
            OSError: it does not listen.
        """
        if self._process is None:
            raise ServerError(f"{self.label} is not running")
        return Client(self.port, CALL_SECONDS)

    def log_tail(self) -> str:
        """The end of what it has written since it was last started."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.is_file() else ""

    @property
    def _log(self) -> Path:
        return self.folder / f"log-{self._starts}.txt"

    def memory(self) -> Memory:
        return resident(self.pid)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def _answers(self) -> bool:
        try:
            with Client(self.port, timeout=10) as client:
                return bool(client.call(b"PING") == b"PONG")
        except hiredis.ReplyError as error:
            if str(error).startswith("LOADING"):
                return False
            raise ServerError(f"{self.label} answered PING with: {error}") from error
        except OSError:
            return False


GRAPHS = ("HNSW", "HNSW_SQ8", "AUTO")
"""Index types whose graph can be given a shape."""

TYPES: dict[str, Effort | None] = {
    "FLAT": None,
    "HNSW": EF,
    "HNSW_SQ8": EF,
    "IVF_FLAT": NPROBE,
    "IVF_PQ": NPROBE,
    "AUTO": EF,
}
"""Pyrope's index types, and what trades recall for speed on each."""


class Pyrope(Server):
    """Pyrope from this repository, with durability on, run by this interpreter.

    Attributes:
        index: the name of the index that is made, filled and searched.
    """

    def __init__(
        self, label: str, folder: Path, config: Path | None = None, index_type: str = "HNSW"
    ) -> None:
        """With durability on.

        Args:
            config: a configuration file for it.
            index_type: one of `TYPES`.
        """
        super().__init__(label, folder)
        self._config = config
        self.index_type = index_type
        self.index = INDEX
        self.effort = TYPES[index_type]
        self._options: tuple[tuple[str, int], ...] = ()
        if index_type in GRAPHS:
            self._options = (("M", M), ("EFCONSTRUCTION", EF_CONSTRUCTION))
        words = [f"{name} {value}" for name, value in self._options]
        self.settings = ", ".join([index_type, "COSINE", *words, "durable"])

    def version(self) -> str:
        return importlib.metadata.version("pyrope-server")

    def command_line(self) -> list[str]:
        command = [sys.executable, "-m", "pyrope", "serve", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--http-port", "0", "--data-dir", str(self.data)]
        if self._config is not None:
            command += ["--config", str(self._config)]
        return command

    def create(self, dim: int) -> None:
        arguments = [b"DIM", b"%d" % dim, b"METRIC", b"COSINE", b"TYPE", self.index_type.encode()]
        for name, value in self._options:
            arguments += [name.encode(), b"%d" % value]
        with self.client() as client:
            client.call(b"VECTOR.CREATE", self.index, *arguments)

    def add(self) -> Template:
        return (b"VECTOR.ADD", self.index, Field.ID, b"FP32", Field.VECTORS)

    def add_batch(self) -> Template:
        """Store many vectors at once under their row numbers."""
        return (b"VECTOR.MADD", self.index, b"FP32", Field.VECTORS, b"IDS", Field.IDS)

    def search(self, effort: int | None) -> Template:
        # It is the search that is measured, not the memory of one.
        options = (b"COUNT", b"%d" % K, *_effort(self, effort), b"CACHE", b"OFF")
        return (b"VECTOR.SEARCH", self.index, b"FP32", Field.VECTORS, *options)

    def settle(self) -> None:
        with self.client() as client:
            client.call(b"VECTOR.BUILD", self.index)

    def count(self) -> int:
        with self.client() as client:
            return int(client.call(b"VECTOR.CARD", self.index))

    def describe(self) -> dict[str, Any]:
        """What VECTOR.INFO says: integers and strings by name."""
        with self.client() as client:
            flat = client.call(b"VECTOR.INFO", self.index)
        values = (one.decode() if isinstance(one, bytes) else one for one in flat[1::2])
        return dict(zip((name.decode() for name in flat[::2]), values, strict=True))

    def remove_graphs(self) -> int:
        """Delete the saved graphs of the stopped server, so that it must rebuild them.

        Returns:
            How many files there were: an index that is scanned has none.
        """
        graphs = [path for path in self.data.glob("indexes/*/graph*") if path.is_file()]
        for path in graphs:
            path.unlink()
        return len(graphs)

    def disk_bytes(self) -> int:
        """What its data takes on the disk (holes in files not counted)."""
        files = [path for path in self.data.rglob("*") if path.is_file()]
        return sum(path.stat().st_blocks for path in files) * _BLOCK_BYTES


class Redis(Server):
    """Redis 8 with its vector sets, without persistence."""

    effort = EF

    def __init__(
        self,
        label: str,
        folder: Path,
        binaries: Path,
        *,
        quantised: bool = False,
        cas: bool = False,
    ) -> None:
        """As the options say.

        Args:
            binaries: the folder with redis-server.
            quantised: keep int8 (Redis' default) instead of float32.
            cas: VADD's CAS option: the neighbours of a new vector are sought in a thread.
        """
        super().__init__(label, folder)
        self._binary = binaries / "redis-server"
        self._quantisation = b"Q8" if quantised else b"NOQUANT"
        self._cas = (b"CAS",) if cas else ()
        self.settings = (
            f"{self._quantisation.decode()}, M {M}, EF {EF_CONSTRUCTION} on insertion, "
            f"VADD {'with' if cas else 'without'} CAS, no persistence"
        )

    def version(self) -> str:
        with self.client() as client:
            info: bytes = client.call(b"INFO", b"server")
        fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        return fields["redis_version"]

    def command_line(self) -> list[str]:
        command = [str(self._binary), "--bind", "127.0.0.1", "--port", str(self.port)]
        return [*command, "--save", "", "--appendonly", "no", "--dir", str(self.data)]

    def create(self, dim: int) -> None:
        """Nothing to do: the first VADD makes the set."""

    def add(self) -> Template:
        effort = (b"EF", b"%d" % EF_CONSTRUCTION, b"M", b"%d" % M)
        vector = (b"FP32", Field.VECTORS, Field.ID)
        return (b"VADD", INDEX, *vector, *self._cas, self._quantisation, *effort)

    def search(self, effort: int | None) -> Template:
        options = (b"COUNT", b"%d" % K, *_effort(self, effort))
        return (b"VSIM", INDEX, b"FP32", Field.VECTORS, *options)

    def settle(self) -> None:
        """Nothing to do: VADD answers after the vector has been linked."""

    def count(self) -> int:
        with self.client() as client:
            return int(client.call(b"VCARD", INDEX))

    def save(self) -> None:
        """Write the RDB file that the next start loads."""
        with self.client() as client:
            client.call(b"SAVE")


def _effort(server: Server, effort: int | None) -> tuple[bytes, ...]:
    if effort is None:
        return ()
    if server.effort is None:
        raise ServerError(f"{server.label} has no effort to set")
    return server.effort.option, b"%d" % effort


def _free_port() -> int:
    """A port that nobody listens on, below those that Linux gives to outgoing connections.

    A client that polls a port among those can be given that very port and connect to itself,
    which keeps the server from it. Processes start at different ports, so that two harnesses do
    not choose the same one before their servers listen.
    """
    for port in range(10_000 + os.getpid() * 7 % 20_000, _FIRST_OUTGOING_PORT):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError("no port is free")
