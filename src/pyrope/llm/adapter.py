"""What the adapters of providers share: one client, one attempt, errors without secrets."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from pyrope.clock import Clock
from pyrope.llm.provider import Completion, Failure, Prompt, ProviderError
from pyrope.llm.reply_schema import ResponseFormat

T = TypeVar("T")
C = TypeVar("C")

MOST_REPLY_BYTES = 128 * 1024
"""Bytes of a reply's body: what is asked for takes a few thousand, and parsing must be quick."""

MOST_CONNECTIONS = 64
"""As `llm.concurrency` at the most: a call never waits for another's connection."""

NO_KEY = "none"
"""Shown to an API that wants no key, as its client cannot show nothing."""


class RunOffLoop(Protocol):
    """Calls a function in a thread: ``lambda f: loop.run_in_executor(executor, f)``."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an API is, and how it wants to be asked.

    Attributes:
        model: name of the model.
        base_url: empty: the provider's own.
        api_key: None: the API wants none.
        timeout_s: a call takes no longer.
        response_format: how JSON is asked for.
        thinking_tokens: bound on tokens of a reply on top of what its prompt says.
    """

    model: str
    base_url: str = ""
    api_key: SecretStr | None = None
    timeout_s: float = 30.0
    response_format: ResponseFormat = "json_schema"
    thinking_tokens: int = 0

    @property
    def key(self) -> str:
        """In clear, for the API's client."""
        return NO_KEY if self.api_key is None else self.api_key.get_secret_value()


class Adapter(ABC, Generic[C]):
    """A provider by way of its official client, which is made in `start` and dropped in `close`.

    The same adapter can be started again after `close`, on another loop too.

    Args:
        name: of the provider, as in the settings.
        home: URL of the provider's own API.
        clock: for dates in ``Retry-After``. How long a call may take is the loop's own time: it is
            about sockets.
        run: clients are made in a thread, as importing them takes half a second.
    """

    def __init__(
        self, name: str, home: str, endpoint: Endpoint, *, clock: Clock, run: RunOffLoop
    ) -> None:
        self._name = name
        self.endpoint = endpoint
        self._clock = clock
        self._run = run
        self._client: C | None = None
        host = urlsplit(endpoint.base_url or home).netloc
        self.who = f"{name} at {host}"
        """The provider in words for operators."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def model(self) -> str:
        return self.endpoint.model

    async def start(self) -> None:
        """Make the client; no connection is opened before the first call.

        Raises:
            ProviderError: it cannot be made.
            RuntimeError: it has been started already.
        """
        if self._client is not None:
            raise RuntimeError(f"{self.who} has been started already")
        try:
            self._client = await self._run(self._make)
        except Exception as error:  # noqa: BLE001 - whatever a library or the environment makes of it
            why = type(error).__name__
        else:
            return
        raise ProviderError(Failure.INVALID, f"no client for {self.who} can be made: {why}")

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask once. A cancelled call leaves no connection behind.

        Raises:
            ProviderError: there is no completion.
            RuntimeError: `start` has not been called.
        """
        client = self._client
        if client is None:
            raise RuntimeError(f"{self.who} has not been started")
        timeout_s = self.endpoint.timeout_s
        # Raised after the handlers, and without a context: the client's error would drag the
        # request along, with the key and the prompt in it.
        try:
            async with asyncio.timeout(timeout_s):
                return await self._call(client, prompt)
        except ProviderError as error:
            failed = error
        except TimeoutError:
            failed = ProviderError(
                Failure.UNAVAILABLE, f"{self.who} has not answered within {timeout_s:g} s"
            )
        except Exception as error:  # noqa: BLE001 - clients raise whatever a strange reply makes them
            failed = self._explain(error)
        failed.__context__ = None
        raise failed.with_traceback(None)

    async def close(self) -> None:
        """Close every connection. Idempotent; also before `start`."""
        client, self._client = self._client, None
        if client is not None:
            await self._close(client)

    def unreadable(self) -> ProviderError:
        """The error for a reply that no API of this kind gives."""
        return ProviderError(Failure.UNAVAILABLE, f"{self.who} sent something that is no reply")

    def most_tokens_out(self, prompt: Prompt) -> int:
        """Bound on tokens of the reply, thoughts included."""
        return prompt.max_tokens_out + self.endpoint.thinking_tokens

    def cut_off(self, prompt: Prompt, tokens_in: int, tokens_out: int) -> ProviderError:
        """The error for a reply that has reached its bound on tokens."""
        return ProviderError(
            Failure.MALFORMED,
            f"a reply of {self.model} was cut off at {self.most_tokens_out(prompt)} tokens",
            tokens_in=tokens_in,
            tokens_out=tokens_out,
        )

    def _explain(self, error: Exception) -> ProviderError:
        """What an exception of the client means; looks at what caused it too."""
        # Imported by `_make` already.
        from pyrope.http_client import UnusableReplyError  # noqa: PLC0415

        found: BaseException | None = error
        while found is not None:
            if isinstance(found, UnusableReplyError):
                return ProviderError(Failure.MALFORMED, f"a reply of {self.who} is {found}")
            known = self._known(found)
            if known is not None:
                return known
            found = found.__cause__ or found.__context__
        return ProviderError(
            Failure.UNAVAILABLE, f"no answer of {self.who} has arrived ({type(error).__name__})"
        )

    @abstractmethod
    def _make(self) -> C:
        """Make the client; called in a thread."""

    @abstractmethod
    async def _call(self, client: C, prompt: Prompt) -> Completion:
        """Ask; raises ProviderError, or whatever the client raises."""

    @abstractmethod
    async def _close(self, client: C) -> None: ...

    @abstractmethod
    def _known(self, error: BaseException) -> ProviderError | None:
        """What an exception of the client's own means; None where it is not one."""
