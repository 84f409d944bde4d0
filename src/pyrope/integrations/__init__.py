"""Remembered responses for what others call language models with.

Each module needs its own library, which an extra of its name installs: `pyrope.integrations.openai`
wraps OpenAI's clients, `pyrope.integrations.langchain` is a cache for LangChain,
`pyrope.integrations.litellm` one for LiteLLM; `pyrope.integrations.function` is for any function
and needs nothing more. What they share is a `ResponseCache`:

    from openai import OpenAI
    from pyrope.integrations import RememberOptions, ResponseCache
    from pyrope.integrations.openai import remembering

    cache = ResponseCache("answers", RememberOptions(max_error=0.05))
    client = remembering(OpenAI(), cache)

A cache that fails breaks no call: that is logged, and the model is asked. Nothing is remembered but
what the model has said to its end.
"""

from pyrope.integrations.calls import call_options
from pyrope.integrations.options import RememberOptions, Spent
from pyrope.integrations.response_cache import ResponseCache

__all__ = ["RememberOptions", "ResponseCache", "Spent", "call_options"]
