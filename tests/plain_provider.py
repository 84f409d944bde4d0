"""The plainest stand-in of a provider: one reply a connection, no schemas, no other address.

`pyrope.testing.provider_servers` speak as the real ones do. This one is what somebody writes in a
hurry, on `http.server`: whatever the model is asked, it answers the same.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKENS_IN, TOKENS_OUT = 211, 17


class PlainProvider(ThreadingHTTPServer):
    """Answers a POST anywhere as Gemini where it looks like that, else as OpenAI.

    Args:
        reply: what the model writes.

    Attributes:
        paths: that were asked for.
    """

    daemon_threads = True

    def __init__(self, reply: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.paths: list[str] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(self.reply)
        if "contents" in body:
            return {
                "candidates": [{"content": {"parts": [{"text": text}]}}],
                "usageMetadata": {
                    "promptTokenCount": TOKENS_IN,
                    "candidatesTokenCount": TOKENS_OUT,
                },
            }
        return {
            "choices": [{"message": {"content": text}}],
            "usage": {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT},
        }


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, PlainProvider)
        server.paths.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(server.answer(body)).encode())

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def plain_provider(reply: Any) -> Iterator[PlainProvider]:
    with PlainProvider(reply) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
