"""Language models for servers under measurement: stand-ins on a thread of the harness."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyrope.testing.openai_server import OpenAIServer
from pyrope.testing.provider_outcomes import Behaviour


@contextmanager
def stand_in(chat: Behaviour) -> Iterator[OpenAIServer]:
    """A local endpoint that answers as `chat` says; it is gone at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="model")
    thread.start()
    server = OpenAIServer(chat=chat)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def configured(folder: Path, server: OpenAIServer, **more: Any) -> Path:
    """A configuration file for a Pyrope that asks it, without limits a minute."""
    settings: dict[str, Any] = {
        "provider": "openai",
        "model": "stand-in",
        "base_url": server.base_url,
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        **more,
    }
    lines = [
        f"{name} = {value!r}" if isinstance(value, int | float) else f'{name} = "{value}"'
        for name, value in settings.items()
    ]
    path = folder / "model.toml"
    path.write_text("[llm]\n" + "\n".join(lines) + "\n")
    return path
