"""What every test shares."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

import pyrope.native_threads  # noqa: F401 - as `pyrope.cli` does, before NumPy and FAISS
from pyrope.testing.clock import ManualClock
from servers import RunningServer, running_server

# In CI the examples are the same in every run, and a busy machine fails no test for being slow.
settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("default", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when the test moves it."""
    return ManualClock()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared_server: RunningServer) -> Iterator[RunningServer]:
    """The shared server, empty."""
    yield shared_server
    with shared_server.client() as client:
        client.flushall()


@pytest.fixture
def client(server: RunningServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def any_client(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A client of either protocol."""
    with server.client(protocol=request.param) as client:
        yield client


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a server's and a client's certificate signed by it."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test authority",
    )  # fmt: skip
    for name in ("server", "client"):
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=IP:127.0.0.1",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-copy_extensions", "copyall",
        )  # fmt: skip
    return folder
