"""Stand-ins of providers of language models and embeddings: real HTTP servers on this host.

They speak as much of each API as its official client uses, so that tests drive the real clients:

    server = GeminiServer(chat=always(answer_json({"same": True})))
    await server.start()
    ... HttpOptions(base_url=server.base_url) ...
    await server.stop()

`chat` and `embed` may be replaced at any moment, by a function of what is asked, by `always` or
by a `Script`. Every request is kept in `asked`, and what was reported as used is summed, so that a
test can compare it with a ledger.
"""

from __future__ import annotations

from pyrope.testing.gemini_server import GeminiServer
from pyrope.testing.openai_server import OpenAIServer
from pyrope.testing.provider_outcomes import (
    Answer,
    Asked,
    Behaviour,
    BreakOff,
    Delay,
    Hang,
    HangUp,
    NoCandidates,
    Outcome,
    Problem,
    Raw,
    Refused,
    Script,
    Vectors,
    always,
    answer_json,
    approximate_tokens,
    pseudo_embedding,
)
from pyrope.testing.provider_server import ProviderServer

__all__ = [
    "Answer",
    "Asked",
    "Behaviour",
    "BreakOff",
    "Delay",
    "GeminiServer",
    "Hang",
    "HangUp",
    "NoCandidates",
    "OpenAIServer",
    "Outcome",
    "Problem",
    "ProviderServer",
    "Raw",
    "Refused",
    "Script",
    "Vectors",
    "always",
    "answer_json",
    "approximate_tokens",
    "pseudo_embedding",
]
