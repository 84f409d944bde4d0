"""Exit 0 if the server in this container answers. For HEALTHCHECK in the Dockerfile.

A server that asks for a password, or that is still loading its data, is alive.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 3
ALIVE = (b"+PONG\r\n", b"-NOAUTH ", b"-LOADING ")


def is_alive(port: int) -> bool:
    """Whether what listens on `port` of this host answers PING as a Pyrope server does."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            with connection.makefile("rb") as replies:
                return replies.readline(1024).startswith(ALIVE)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_alive(int(os.environ.get("PYROPE_PORT", "7379"))) else 1)
