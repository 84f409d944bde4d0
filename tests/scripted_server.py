"""A server that answers what a test has written down, or hangs up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import hiredis

_GREETING = b"%1\r\n$5\r\nproto\r\n:3\r\n"
HANG_UP: None = None


class ScriptedServer:
    """One answer for each command that is not of the handshake, in the order they come.

    Args:
        answers: RESP3; HANG_UP: the connection is closed instead.

    Attributes:
        received: commands that have been answered.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self.received: list[Sequence[bytes]] = []
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="scripted-server")
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(ConnectionError):
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        reader = hiredis.Reader()
        while part := connection.recv(65536):
            reader.feed(part)
            while (command := reader.gets()) is not False:
                if command[0] == b"HELLO":
                    connection.sendall(_GREETING)
                elif command[0] == b"CLIENT":
                    connection.sendall(b"+OK\r\n")
                else:
                    self.received.append(command)
                    answer = self._answers.pop(0)
                    if answer is HANG_UP:
                        return
                    connection.sendall(answer)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)


@contextmanager
def scripted_server(*answers: bytes | None) -> Iterator[ScriptedServer]:
    """Use it by one client at a time, which closes its connections before this is over."""
    server = ScriptedServer(*answers)
    try:
        yield server
    finally:
        server.stop()
