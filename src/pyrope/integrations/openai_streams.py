"""Streams of completions: one that is being made, and one out of the memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from openai.types.chat import ChatCompletionChunk

from pyrope.integrations.chat import Assembly, chunks


class PassedStream:
    """A stream that is being made, and listened to.

    Args:
        end: told of the completion once it is through; of None where it is not.
    """

    def __init__(self, stream: Any, end: Callable[[Mapping[str, Any] | None], None]) -> None:
        self._stream = stream
        self._end: Callable[[Mapping[str, Any] | None], None] | None = end
        self._assembly = Assembly()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        return self

    def __next__(self) -> ChatCompletionChunk:
        try:
            chunk: ChatCompletionChunk = next(self._stream)
        except StopIteration:
            self._ended(self._assembly.completion())
            raise
        except BaseException:
            self._ended(None)
            raise
        self._assembly.add(chunk)
        return chunk

    def _ended(self, completion: Mapping[str, Any] | None) -> None:
        end, self._end = self._end, None
        if end is not None:
            end(completion)

    def close(self) -> None:
        self._stream.close()
        self._ended(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncPassedStream:
    """As `PassedStream`."""

    def __init__(
        self, stream: Any, end: Callable[[Mapping[str, Any] | None], Awaitable[None]]
    ) -> None:
        self._stream = stream
        self._end: Callable[[Mapping[str, Any] | None], Awaitable[None]] | None = end
        self._assembly = Assembly()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        try:
            chunk: ChatCompletionChunk = await anext(self._stream)
        except StopAsyncIteration:
            await self._ended(self._assembly.completion())
            raise
        except BaseException:
            await self._ended(None)
            raise
        self._assembly.add(chunk)
        return chunk

    async def _ended(self, completion: Mapping[str, Any] | None) -> None:
        end, self._end = self._end, None
        if end is not None:
            await end(completion)

    async def close(self) -> None:
        await self._stream.close()
        await self._ended(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class RecalledStream:
    """A stream out of the memory.

    Args:
        found: the completion.
        options: as `stream_options` of the request; None: there are none.
    """

    def __init__(self, found: Mapping[str, Any], options: object) -> None:
        self._chunks = _chunks(found, options)

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        return self

    def __next__(self) -> ChatCompletionChunk:
        return next(self._chunks)

    def close(self) -> None:
        self._chunks = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncRecalledStream:
    """As `RecalledStream`."""

    def __init__(self, found: Mapping[str, Any], options: object) -> None:
        self._chunks = _chunks(found, options)

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def close(self) -> None:
        self._chunks = iter(())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _chunks(found: Mapping[str, Any], options: object) -> Iterator[ChatCompletionChunk]:
    usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
    return map(ChatCompletionChunk.model_validate, chunks(found, usage=usage))
