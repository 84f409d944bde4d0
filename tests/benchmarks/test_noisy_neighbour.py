"""The benchmark of one tenant's flood, on little data for a moment."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import hiredis
import pytest
from benchmarks.harness.wire import opened, pack

from benchmarks import noisy_neighbour


def test_a_run_measures_the_quiet_tenant_alone_and_beside_the_flood_on_both_servers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    options = ["--count", "300", "--seconds", "0.2", "--rounds", "1", "--connections", "4"]
    floods = ["--floods", "VECTOR.GET", "exact searches", "--shared", str(tmp_path)]
    assert noisy_neighbour.main([*options, *floods, "--write", str(page)]) == 0
    assert capsys.readouterr().out == page.read_text()
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows[2:]] == [
        "alone",
        "alone, other processes busy",
        *["flood of VECTOR.GET, 4 × 16"] * 2,
        *["flood of exact searches, 4 × 1"] * 2,
    ]
    assert [row[1] for row in rows[4:]] == ["fair", "in one line"] * 2
    for row in rows[4:]:
        assert float(row[-1].strip(" |").replace(",", "")) > 0


def _answering(reply: bytes) -> int:
    """A port on which one client is answered once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            client.recv(1000)
            client.sendall(reply)

    threading.Thread(target=serve).start()
    port: int = listener.getsockname()[1]
    return port


def test_a_connection_is_handed_over_when_its_first_command_is_answered() -> None:
    with opened(_answering(b"+OK\r\n"), pack((b"AUTH", b"t", b"k"))) as connection:
        assert connection.recv(10) == b""


def test_a_first_command_that_is_refused_is_an_error() -> None:
    with pytest.raises(hiredis.ReplyError, match="WRONGPASS"):
        opened(_answering(b"-WRONGPASS no\r\n"), pack((b"AUTH", b"t", b"k")))
    with pytest.raises(ConnectionError, match="closed"):
        opened(_answering(b""), pack((b"AUTH", b"t", b"k")))
