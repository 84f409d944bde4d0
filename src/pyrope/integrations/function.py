"""Any function that asks a model, with a memory.

@remembered(cache, "{question}")
def answer(question: str, language: str = "en") -> str: ...
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Callable, Collection, Mapping
from string import Formatter
from typing import Any, ParamSpec, TypeVar

from pyrope.integrations.questions import Question, question
from pyrope.integrations.response_cache import ResponseCache

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def remembered(
    cache: ResponseCache,
    prompt: str,
    *,
    ignore: Collection[str] = (),
    name: str | None = None,
    accept: Callable[[Any], bool] = lambda result: result is not None,
    dumps: Callable[[Any], str] = json.dumps,
    loads: Callable[[str], Any] = json.loads,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: what a function returns is remembered, for this prompt and those like it.

    For functions and coroutine functions. Arguments that are not in the template are part of the
    scope, by their JSON: a result is for one who gives the same. With arguments that JSON cannot
    say, and that are not ignored, the function is called, and nothing is remembered.

    Args:
        prompt: what near hits go by: a template of `str.format`, with the function's parameters.
        ignore: parameters that the result does not depend on, such as ``self`` or a client.
        name: by which the function is known to the memory; None: its module and name. What is
            remembered under a name is for functions that do the same.
        accept: whether a result is worth remembering. What was cut off is not.
        dumps, loads: results as text, and back. Raising ValueError or TypeError, they mean that it
            cannot be done. JSON makes lists of tuples, and text of the keys of dicts: where these
            two are not given, what would come back as something else is not remembered.

    Raises:
        TypeError: of what it returns: this is no function of that kind (generators are not), or it
            has no such parameters.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        call = _Call(function, prompt, ignore, name, cache)

        def found(response: str | None) -> tuple[Any] | None:
            try:
                return None if response is None else (loads(response),)
            except (TypeError, ValueError) as error:
                _log.warning("what %s has returned cannot be read: %s", call.name, error)
                return None

        def dumped(result: Any) -> str | None:
            try:
                text = dumps(result) if accept(result) else None
                if text is not None and (dumps, loads) == (json.dumps, json.loads):
                    _check_comes_back(text, result)
                return text
            except (TypeError, ValueError) as error:
                _log.warning("what %s returns cannot be remembered: %s", call.name, error)
                return None

        if inspect.iscoroutinefunction(function):
            return _awaiting(function, call, found, dumped)
        return _blocking(function, call, found, dumped)

    return decorate


class _Call:
    """What a call of a function asks."""

    def __init__(
        self,
        function: Callable[..., Any],
        prompt: str,
        ignore: Collection[str],
        name: str | None,
        cache: ResponseCache,
    ) -> None:
        self.name = name or f"{function.__module__}.{function.__qualname__}"
        self.cache = cache
        self._signature = inspect.signature(function)
        _check(function, self._signature, prompt, ignore)
        self._prompt = prompt
        self._left_out = _names(prompt) | set(ignore)

    def question(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Question | None:
        """None: it is not to be looked up. Raises TypeError: as the function itself would."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        given = {each: arguments[each] for each in arguments.keys() - self._left_out}
        try:
            said = self._prompt.format(**arguments)
            return question(said, f"function {self.name}", given, self.cache.options.scope)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            _log.warning("a call of %s is not looked up: %s", self.name, error)
            return None


def _blocking(
    function: Callable[P, R],
    call: _Call,
    found: Callable[[str | None], tuple[Any] | None],
    dumped: Callable[[Any], str | None],
) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with call.cache.asking(call.question(args, kwargs)) as turn:
            kept = found(turn.response)
            if kept is not None:
                told: R = kept[0]
                return told
            result = function(*args, **kwargs)
            text = dumped(result)
            if text is not None:
                call.cache.remember(turn, text)
            return result

    return wrapper


def _awaiting(
    function: Callable[P, Any],
    call: _Call,
    found: Callable[[str | None], tuple[Any] | None],
    dumped: Callable[[Any], str | None],
) -> Callable[P, Any]:
    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        async with call.cache.asking_async(call.question(args, kwargs)) as turn:
            kept = found(turn.response)
            if kept is not None:
                return kept[0]
            result = await function(*args, **kwargs)
            text = dumped(result)
            if text is not None:
                await call.cache.remember_async(turn, text)
            return result

    return wrapper


def _check(
    function: Callable[..., Any],
    signature: inspect.Signature,
    prompt: str,
    ignore: Collection[str],
) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("a generator is not remembered: only what is returned is")
    names = _names(prompt)
    if not names:
        raise TypeError(f"the prompt {prompt!r} has no parameter in it, such as {{question}}")
    if unknown := (names | set(ignore)) - signature.parameters.keys():
        raise TypeError(f"{function.__qualname__} has no parameter {min(unknown)!r}")


def _check_comes_back(text: str, result: Any) -> None:
    """Raises ValueError where JSON makes something else of a result."""
    if json.loads(text) != result:
        raise ValueError("JSON makes something else of it")


def _names(prompt: str) -> set[str]:
    """Parameters that a template takes."""
    fields = (field for _, field, _, _ in Formatter().parse(prompt) if field is not None)
    return {field.partition(".")[0].partition("[")[0] for field in fields}
