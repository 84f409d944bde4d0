"""The outcome of a request, told to whoever listens at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Promise(Generic[T]):
    """What `asyncio.Future` is, without its turn of the loop between the outcome and its listeners.

    Listeners are called within `set_result`, `set_exception` and `cancel`, once, in the order in
    which they came; what one raises goes to the loop's exception handler. That takes half the time
    of a search's way back to its connection. For use on the event loop; can be awaited.
    """

    __slots__ = ("_error", "_listeners", "_result", "_settled")

    def __init__(self) -> None:
        self._settled = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._listeners: list[Callable[[Any], object]] = []

    def done(self) -> bool:
        return self._settled

    def cancelled(self) -> bool:
        return isinstance(self._error, asyncio.CancelledError)

    def result(self) -> T:
        """The result; raises the exception, or CancelledError. There must be an outcome."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # there is one

    def exception(self) -> BaseException | None:
        """The exception, if that is the outcome; CancelledError if it was cancelled."""
        return self._error

    def add_done_callback(self, listener: Callable[[Any], object]) -> None:
        """Have `listener` called with this promise: when there is an outcome, or now."""
        if self._settled:
            listener(self)
        else:
            self._listeners.append(listener)

    def set_result(self, result: T) -> None:
        """Raises InvalidStateError if there is an outcome already."""
        self._settle()
        self._result = result
        self._tell()

    def set_exception(self, error: BaseException) -> None:
        """Raises InvalidStateError if there is an outcome already."""
        self._settle()
        self._error = error
        self._tell()

    def cancel(self) -> bool:
        """Nobody waits for it any more. Returns whether there was no outcome yet."""
        if self._settled:
            return False
        self.set_exception(asyncio.CancelledError())
        return True

    def _settle(self) -> None:
        if self._settled:
            raise asyncio.InvalidStateError("there is an outcome already")
        self._settled = True

    def _tell(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            try:
                listener(self)
            except Exception as failure:  # noqa: BLE001 - whoever brought the outcome goes on
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a listener of a promise failed", "exception": failure}
                )

    def __await__(self) -> Generator[Any, None, T]:
        if not self._settled:
            future = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: _wake(future))
            try:
                yield from future
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
