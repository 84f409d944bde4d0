"""VECTOR.REMEMBER, RECALL, FORGET and FEEDBACK: what a language model has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unicodedata import category

from pyrope.cache.query_key import QueryKey, text_key
from pyrope.commands.context import Context, Pending
from pyrope.commands.options import parse_float, parse_integer, quoted
from pyrope.commands.ranks import OPERATOR
from pyrope.commands.remembering_reply import Rendering
from pyrope.commands.spec import Access, Argument, Command
from pyrope.commands.text_vector import with_text
from pyrope.commands.vector_argument import VECTOR_ARGUMENT, VectorArgument, parse_vector
from pyrope.commands.vectors import EXPIRY_MAX_S
from pyrope.config import RememberSettings, Settings
from pyrope.embed.texts import check_text
from pyrope.errors import CommandError
from pyrope.resp.values import OK
from pyrope.semantic.remembered.entry import Entry, parse_name, prompt_key
from pyrope.semantic.remembered.scope import EVERYBODY, encode_scope
from pyrope.service.index import OpenIndex
from pyrope.service.remembered.asking import Asked, Recalled
from pyrope.service.remembered.keeping import NewResponse
from pyrope.service.remembered.unit import unit
from pyrope.tenants.cost import CHANGED, RECALL, REQUEST, STORED, WRITE
from pyrope.tenants.usage import MAX_UNITS

GROUP = "vector"
_FIELD_MAX_BYTES = 128
_VECTOR_WORDS = (b"FP32", b"VALUES", b"TEXT")
# What a response takes beside prompt, response and vector, about.
_OVERHEAD_BYTES = 800
# English takes a token for four bytes or a little less, so that what is saved is told rather too
# low.
_BYTES_A_TOKEN = 4
# Unicode's categories of what is not to be seen: white space and what controls others.
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp", "Zs"))

Pairs = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Options:
    """What follows prompt (and response).

    Attributes:
        words: the other options with their values, by word.
    """

    vector: VectorArgument | None = None
    scope: Pairs | None = None
    documents: tuple[bytes, list[bytes]] | None = None
    words: dict[bytes, bytes] = field(default_factory=dict)


def _parse(
    args: list[bytes],
    start: int,
    settings: Settings,
    *,
    words: Sequence[bytes],
    alone: Sequence[bytes] = (),
) -> _Options:
    """Read options, in any order and each once.

    Args:
        words: those that take one value.
        alone: those that take none.

    Raises:
        CommandError, DimensionError: an unknown or doubled word, or a value that is missing or not
            acceptable.
    """
    name = quoted(args[0]).upper()
    found = _Options()
    position, seen = start, set()
    while position < len(args):
        word = args[position].upper()
        kind = b"FP32" if word in _VECTOR_WORDS else word
        if kind in seen:
            raise CommandError(f"syntax error in {name} command: {quoted(word)} is doubled")
        seen.add(kind)
        if kind == b"FP32":
            found.vector, position = parse_vector(args, position, settings.limits, element=False)
        elif word == b"SCOPE":
            found.scope, position = _parse_scope(args, position + 1, settings.remember)
        elif word == b"DEPENDS" and b"DEPENDS" in words:
            found.documents, position = _parse_documents(args, position + 1, settings)
        elif word in alone:
            found.words[word] = b""
            position += 1
        elif word in words and position + 1 < len(args):
            found.words[word] = args[position + 1]
            position += 2
        else:
            raise CommandError(f"syntax error in {name} command")
    return found


def _parse_scope(args: list[bytes], position: int, settings: RememberSettings) -> tuple[Pairs, int]:
    count = parse_integer(args[position]) if position < len(args) else None
    if count is None or not 0 <= count <= settings.scope_fields:
        raise CommandError(
            f"invalid SCOPE: a number of fields from 0 to {settings.scope_fields} is expected"
        )
    end = position + 1 + 2 * count
    words = args[position + 1 : end]
    if len(words) != 2 * count:
        raise CommandError(
            f"invalid SCOPE: {count} fields with a value each are announced, {len(words)} "
            "arguments follow"
        )
    pairs = list(zip(words[::2], words[1::2], strict=True))
    if not all(0 < len(name) <= _FIELD_MAX_BYTES for name, _ in pairs):
        raise CommandError(f"invalid SCOPE: a field has from 1 to {_FIELD_MAX_BYTES} bytes")
    if len({name for name, _ in pairs}) < count:
        raise CommandError("invalid SCOPE: a field is doubled")
    nbytes = sum(map(len, words))
    if nbytes > settings.scope_bytes:
        raise CommandError(
            f"invalid SCOPE: it has {nbytes} bytes, at most {settings.scope_bytes} are allowed"
        )
    return pairs, end


def _parse_documents(
    args: list[bytes], position: int, settings: Settings
) -> tuple[tuple[bytes, list[bytes]], int]:
    most = settings.remember.depends
    count = parse_integer(args[position + 1]) if position + 1 < len(args) else None
    if count is None or not 1 <= count <= most:
        raise CommandError(
            f"invalid DEPENDS: an index and a number of ids from 1 to {most} are expected"
        )
    end = position + 2 + count
    ids = args[position + 2 : end]
    if len(ids) != count:
        raise CommandError(f"invalid DEPENDS: {count} ids are announced, {len(ids)} follow")
    longest = settings.limits.id_bytes
    if not all(0 < len(id_) <= longest for id_ in ids):
        raise CommandError(f"invalid DEPENDS: an id has from 1 to {longest} bytes")
    return (args[position], list(dict.fromkeys(ids))), end


def _to_prompt(raw: bytes, settings: RememberSettings) -> QueryKey:
    if len(raw) > settings.prompt_bytes:
        raise CommandError(
            f"the prompt has {len(raw)} bytes, at most {settings.prompt_bytes} are allowed"
        )
    try:
        key = text_key(raw)
    except CommandError as error:
        raise CommandError(f"invalid prompt: {error.message.partition(': ')[2]}") from error
    # Of what nobody sees there is no meaning to find again.
    if all(category(character) in _UNSEEN for character in raw.decode()):
        raise CommandError("invalid prompt: it has nothing but control characters")
    return key


def _to_scope(pairs: Pairs | None, index: OpenIndex) -> bytes:
    """The canonical form of a scope. Raises CommandError: fields that the policy does not know."""
    if not pairs:
        return EVERYBODY
    known = index.spec.cache.scope_fields
    for name, _ in pairs:
        if known and name.decode(errors="replace") not in known:
            raise CommandError(
                f"unknown SCOPE field '{quoted(name)}': index '{index.spec.name}' has "
                f"{', '.join(sorted(known))}"
            )
    return encode_scope(pairs)


def _to_number(word: str, raw: bytes | None, low: float, high: float) -> float | None:
    if raw is None:
        return None
    value = parse_float(raw)
    if value is None or not low <= value <= high:
        raise CommandError(f"invalid {word}: a number from {low:g} to {high:g} is expected")
    return value


def _to_integer(word: str, raw: bytes | None, high: int) -> int | None:
    if raw is None:
        return None
    value = parse_integer(raw)
    if value is None or not 1 <= value <= high:
        raise CommandError(f"invalid {word}: an integer from 1 to {high} is expected")
    return value


# -- REMEMBER --------------------------------------------------------------------------------------


def remember(context: Context, args: list[bytes]) -> Any:
    server = context.server
    settings = server.settings
    prompt, response = _to_prompt(args[2], settings.remember), args[3]
    most = settings.remember.response_bytes
    if not 0 < len(response) <= most:
        raise CommandError(f"the response has {len(response)} bytes, from 1 to {most} are allowed")
    options = _parse(args, 4, settings, words=(b"EX", b"DEPENDS", b"LEASE", b"COST"))
    _to_integer("EX", options.words.get(b"EX"), EXPIRY_MAX_S)
    _to_number("COST", options.words.get(b"COST"), 0.0, MAX_UNITS)
    index = server.service.index(context.client.tenant, args[1])
    scope = _to_scope(options.scope, index)
    token = options.words.get(b"LEASE")
    if token is not None:
        index.memory.leases.check(token, scope, prompt_key(prompt.identity))
    if options.documents is not None:
        server.service.index(context.client.tenant, options.documents[0])
    then = partial(_remember, prompt=prompt, response=response, scope=scope, options=options)
    vector = options.vector
    if vector is not None and vector.text is None:
        return then(context, index, vector.resolve(index))
    text = prompt.content if vector is None or vector.text is None else vector.text
    return with_text(context, index, text, then, writes=True)


def _remember(
    context: Context,
    index: OpenIndex,
    blob: bytes,
    *,
    prompt: QueryKey,
    response: bytes,
    scope: bytes,
    options: _Options,
) -> Pending:
    server, memory = context.server, index.memory
    nbytes = len(prompt.content) + len(response) + len(blob) + _OVERHEAD_BYTES
    memory.keeping.check_fits(nbytes)
    server.service.admit_bytes(context.account, index, nbytes)
    index.check_queue()
    tied = None
    if options.documents is not None:
        name, ids = options.documents
        tied = memory.tie(server.service.index(context.client.tenant, name), ids)
    tokens_in, tokens_out = _tokens(prompt.content), _tokens(response)
    cost = _to_number("COST", options.words.get(b"COST"), 0.0, MAX_UNITS)
    future = memory.remember(
        NewResponse(
            key=prompt_key(prompt.identity),
            prompt=prompt.content,
            response=response,
            vector=unit(blob),
            scope=scope,
            lifetime_ms=memory.lifetime_ms(
                _to_integer("EX", options.words.get(b"EX"), EXPIRY_MAX_S)
            ),
            sliding=index.spec.cache.sliding,
            cost=_price(server.settings, tokens_in, tokens_out) if cost is None else cost,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
        ),
        tied,
    )
    account = context.account

    def remembered(entry: Entry, _protocol: int) -> bytes:
        if account is not None:
            account.charge(WRITE + STORED)
        return entry.name

    return Pending(future, remembered)


def _tokens(raw: bytes) -> int:
    return -(-len(raw) // _BYTES_A_TOKEN)


def _price(settings: Settings, tokens_in: int, tokens_out: int) -> float:
    """What the language model would take, as far as the settings tell."""
    price = settings.llm.price
    if price is None:
        return 0.0
    units = (tokens_in * price.tokens_in + tokens_out * price.tokens_out) / 1000
    return min(units, MAX_UNITS)


def _needs_text(args: list[bytes]) -> bool:
    """Whether a REMEMBER comes without a vector."""
    position = 4
    while position < len(args):
        word = args[position].upper()
        if word in (b"FP32", b"VALUES"):
            return False
        if word in (b"SCOPE", b"DEPENDS"):
            at = position + (1 if word == b"SCOPE" else 2)
            count = parse_integer(args[at]) if at < len(args) else None
            position = at + 1 + (count or 0) * (2 if word == b"SCOPE" else 1)
        else:
            position += 2
    return True


# -- RECALL ----------------------------------------------------------------------------------------


def recall(context: Context, args: list[bytes]) -> Any:
    server = context.server
    settings = server.settings
    received_at = server.clock.monotonic()
    prompt = _to_prompt(args[2], settings.remember)
    options = _parse(
        args, 3, settings, words=(b"THRESHOLD", b"MAXERROR", b"LEASE"), alone=(b"WITHINFO",)
    )
    words = options.words
    if b"THRESHOLD" in words and b"MAXERROR" in words:
        raise CommandError("THRESHOLD and MAXERROR contradict one another")
    threshold = _to_number("THRESHOLD", words.get(b"THRESHOLD"), -1.0, 1.0)
    max_error = _to_number("MAXERROR", words.get(b"MAXERROR"), 0.0, 1.0)
    lease_ms = _to_integer("LEASE", words.get(b"LEASE"), settings.remember.lease_max_ms)
    index = server.service.index(context.client.tenant, args[1])
    memory = index.memory
    asked = Asked(
        identity=prompt.identity,
        key=prompt_key(prompt.identity),
        prompt=prompt.content,
        scope=_to_scope(options.scope, index),
        rule=memory.recalling.rule(threshold, max_error),
        client=context.client.id,
        lease_s=None if lease_ms is None else lease_ms / 1000,
        # A reader may not remember anything, so that nothing would come of its lease.
        may_hold=context.client.rank >= OPERATOR,
    )
    rendering = Rendering(context, asked, received_at, with_info=b"WITHINFO" in words)
    vector = options.vector
    blob = None
    if vector is not None and vector.text is None:
        blob = vector.resolve(index)
    elif not index.spec.embedder:
        raise CommandError(
            f"index '{index.spec.name}' has no embedder: give a vector, or create it with EMBEDDER"
        )
    if vector is not None and vector.text is not None:
        # It is not embedded where the prompt is known; it is an error all the same.
        check_text(vector.text, settings.embed.text_bytes)
    known = memory.recalling.known(asked)
    if known is not None:
        return _answered(rendering, context, known, REQUEST)
    then = partial(_recall, asked=asked, rendering=rendering)
    if blob is not None:
        return then(context, index, blob)
    text = prompt.content if vector is None or vector.text is None else vector.text
    return with_text(context, index, text, then)


def _recall(
    context: Context, index: OpenIndex, blob: bytes, *, asked: Asked, rendering: Rendering
) -> Any:
    outcome = index.memory.recalling.near(asked, unit(blob))
    return _answered(rendering, context, outcome, REQUEST + RECALL)


def _rendered(
    rendering: Rendering, context: Context, units: float, recalled: Recalled, protocol: int
) -> Any:
    if context.account is not None:
        context.account.charge_recall(
            units,
            recalled.saved_tokens,
            recalled.saved_cost,
            hit=recalled.response is not None,
        )
    return rendering.render(recalled, protocol)


def _answered(
    rendering: Rendering,
    context: Context,
    outcome: Recalled | asyncio.Future[Recalled],
    units: float,
) -> Any:
    """The reply, at a moment that tells nothing where that is wanted."""
    render = partial(_rendered, rendering, context, units)
    blur_s = context.server.settings.remember.blur_ms / 1000
    if blur_s:
        late = _blurred(context, outcome, rendering.received_at, blur_s)
        return Pending(context.server.service.spawn(late), render)
    if isinstance(outcome, Recalled):
        return render(outcome, context.client.protocol)
    return Pending(outcome, render)


async def _blurred(
    context: Context,
    outcome: Recalled | asyncio.Future[Recalled],
    received_at: float,
    blur_s: float,
) -> Recalled:
    """Hand an outcome on at the next multiple of so many seconds after it was asked for."""
    recalled: Recalled | None = None
    refused: Exception | None = None
    try:
        recalled = outcome if isinstance(outcome, Recalled) else await outcome
    except Exception as error:  # noqa: BLE001 - it takes its time, too; only who has gone does not
        refused = error
    passed = context.server.clock.monotonic() - received_at
    await asyncio.sleep(blur_s - passed % blur_s)
    if refused is not None:
        raise refused
    assert recalled is not None  # noqa: S101 - it was not refused
    return recalled


# -- FORGET and FEEDBACK ---------------------------------------------------------------------------


def forget(context: Context, args: list[bytes]) -> Pending:
    server = context.server
    settings = server.settings
    word = args[2].upper()
    if word == b"SCOPE":
        pairs, end = _parse_scope(args, 3, settings.remember)
    elif word in (b"ID", b"PROMPT"):
        end = 4
    else:
        raise CommandError("invalid FORGET: ID, PROMPT or SCOPE is expected")
    if end != len(args):
        raise CommandError("syntax error in VECTOR.FORGET command")
    prompt = _to_prompt(args[3], settings.remember) if word == b"PROMPT" else None
    index = server.service.index(context.client.tenant, args[1])
    keeping = index.memory.keeping
    if word == b"SCOPE":
        _to_scope(pairs, index)
        future = keeping.forget_scope(pairs)
    elif prompt is not None:
        future = keeping.forget_prompt(prompt_key(prompt.identity))
    else:
        number = parse_name(args[3])
        future = keeping.forget(-1 if number is None else number)
    account = context.account

    def forgotten(outcome: int, _protocol: int) -> int:
        if account is not None:
            account.charge(WRITE + CHANGED * outcome)
        return outcome

    return Pending(future, forgotten)


_VERDICTS: Mapping[bytes, bool] = {b"GOOD": True, b"BAD": False}


def feedback(context: Context, args: list[bytes]) -> Any:
    server = context.server
    good = _VERDICTS.get(args[3].upper())
    if good is None:
        raise CommandError("invalid FEEDBACK: GOOD or BAD is expected")
    prompt = None
    if len(args) > 4:
        if len(args) != 6 or args[4].upper() != b"PROMPT":
            raise CommandError("syntax error in VECTOR.FEEDBACK command")
        prompt = _to_prompt(args[5], server.settings.remember)
    index = server.service.index(context.client.tenant, args[1])
    entry = index.memory.feedback.find(args[2])
    then = partial(_feedback, name=args[2], good=good, prompt=prompt)
    if prompt is None or not index.spec.embedder or index.memory.feedback.is_known(entry, prompt):
        return then(context, index, None)
    return with_text(context, index, prompt.content, then, writes=True)


def _feedback(
    context: Context,
    index: OpenIndex,
    blob: bytes | None,
    *,
    name: bytes,
    good: bool,
    prompt: QueryKey | None,
) -> Pending:
    future = index.memory.feedback.give(
        name, good=good, prompt=prompt, vector=None if blob is None else unit(blob)
    )
    account = context.account

    def learnt(_outcome: None, _protocol: int) -> Any:
        if account is not None:
            account.charge(WRITE + CHANGED)
        return OK

    return Pending(future, learnt)


_INDEX = Argument("index", "key")
_SCOPE = Argument(
    "scope", "block", "SCOPE", optional=True,
    arguments=(
        Argument("n", "integer"),
        Argument(
            "pair", "block", multiple=True, optional=True,
            arguments=(Argument("field"), Argument("value")),
        ),
    ),
)  # fmt: skip
_DEPENDS = Argument(
    "depends", "block", "DEPENDS", optional=True,
    arguments=(
        Argument("index", "key"), Argument("n", "integer"), Argument("id", multiple=True),
    ),
)  # fmt: skip
_VECTOR = Argument(
    VECTOR_ARGUMENT.name, VECTOR_ARGUMENT.type, optional=True, arguments=VECTOR_ARGUMENT.arguments
)
_WRITE = frozenset({"write", "vector", "slow"})

COMMANDS = (
    Command(
        "VECTOR.REMEMBER", -4, remember,
        "Remembers a language model's response to a prompt, in place of the one that there is for "
        "this prompt within the scope. The vector is the prompt's; without one the index's "
        "EMBEDDER makes it.",
        GROUP, access=Access.WRITE, flags=frozenset({"write", "denyoom"}), categories=_WRITE,
        has_index=True, defers=_needs_text,
        arguments=(
            _INDEX, Argument("prompt"), Argument("response"), _VECTOR,
            Argument("seconds", "integer", "EX", optional=True), _SCOPE, _DEPENDS,
            Argument("token", token="LEASE", optional=True),  # noqa: S106 - a word
            Argument("units", "double", "COST", optional=True),
        ),
        returns="entry id",
    ),
    Command(
        "VECTOR.RECALL", -3, recall,
        "Answers a prompt with what was remembered for it, for an alias of it, or for one that is "
        "near enough, within the scope.",
        GROUP, access=Access.READ, flags=frozenset({"readonly", "blocking"}),
        categories=frozenset({"read", "vector", "slow", "blocking"}), has_index=True,
        arguments=(
            _INDEX, Argument("prompt"), _VECTOR,
            Argument(
                "rule", "oneof", optional=True,
                arguments=(
                    Argument("cosine", "double", "THRESHOLD"),
                    Argument("share", "double", "MAXERROR"),
                ),
            ),
            _SCOPE, Argument("milliseconds", "integer", "LEASE", optional=True),
            Argument("withinfo", "pure-token", "WITHINFO", optional=True),
        ),
        complexity="O(log N) in what is remembered in the scope",
        returns="response | null; WITHINFO: [response | null, info]",
    ),
    Command(
        "VECTOR.FORGET", -4, forget,
        "Forgets a response by its id, a prompt in all scopes, or what is in the scopes that have "
        "all of some fields with these values (SCOPE 0: all there is).",
        GROUP, access=Access.WRITE, flags=frozenset({"write"}), categories=_WRITE,
        has_index=True,
        arguments=(
            _INDEX,
            Argument(
                "what", "oneof",
                arguments=(
                    Argument("id", token="ID"),  # noqa: S106 - a word
                    Argument("prompt", token="PROMPT"),  # noqa: S106 - likewise
                    Argument("scope", "block", "SCOPE", arguments=_SCOPE.arguments),
                ),
            ),
        ),
        complexity="O(N) in scopes for PROMPT and SCOPE, O(1) for ID",
        returns="number of responses forgotten",
    ),
    Command(
        "VECTOR.FEEDBACK", -4, feedback,
        "Says whether a response was right for a prompt, or for the one that it answered last. "
        "One that was not is served no more, until something else is remembered for its prompt; "
        "and both are learnt from.",
        GROUP, access=Access.WRITE, flags=frozenset({"write"}), categories=_WRITE,
        has_index=True,
        arguments=(
            _INDEX, Argument("id"),
            Argument(
                "verdict", "oneof",
                arguments=(
                    Argument("good", "pure-token", "GOOD"), Argument("bad", "pure-token", "BAD"),
                ),
            ),
            Argument("prompt", token="PROMPT", optional=True),  # noqa: S106 - a word
        ),
        returns="OK",
    ),
)  # fmt: skip
