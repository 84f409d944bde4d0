"""Commands that write and read single vectors, by id."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pyrope.commands.context import Context, Pending
from pyrope.commands.options import Option, OptionTable, choice, integer, parse_integer
from pyrope.commands.spec import Access, Argument, Command
from pyrope.commands.text_vector import with_text
from pyrope.commands.vector_argument import (
    VECTOR_ARGUMENT,
    check_rows,
    parse_vector,
)
from pyrope.config import LimitSettings
from pyrope.engine.attributes import parse_attributes
from pyrope.errors import CommandError, DimensionError
from pyrope.service.index import OpenIndex
from pyrope.service.writes import (
    NO_ATTRIBUTES,
    Attributes,
    Condition,
    PutVectors,
    RemoveVectors,
    ReplaceAttributes,
)
from pyrope.tenants.enforcer import Account

GROUP = "vector"
# Ten years: what lives longer does not need to expire.
EXPIRY_MAX_S = 10 * 366 * 86_400
_SCAN_COUNT = 10
_CHECKED_AT_ONCE_BYTES = 4 * 2**20


def _to_attributes(raw: bytes, limits: LimitSettings) -> Attributes:
    """Read a JSON object; the empty string stands for none. Raises CommandError."""
    if not raw:
        return NO_ATTRIBUTES
    if len(raw) > limits.attribute_bytes:
        raise CommandError(
            f"invalid attributes: {len(raw)} bytes exceed the limit of {limits.attribute_bytes}"
        )
    return Attributes(raw, parse_attributes(raw))


def _check_id(id_: bytes, limits: LimitSettings) -> None:
    if not 1 <= len(id_) <= limits.id_bytes:
        raise CommandError(
            f"invalid id: it has {len(id_)} bytes, from 1 to {limits.id_bytes} are allowed"
        )


def _as_is(outcome: Any, protocol: int) -> Any:
    return outcome


def _as_yes_no(outcome: int | None, protocol: int) -> bool | None:
    return None if outcome is None else bool(outcome)


_ADD_OPTIONS = OptionTable(
    "VECTOR.ADD",
    (
        Option("SETATTR", "attributes", _to_attributes, argument="json"),
        Option("NX", "condition", constant=Condition.IF_NEW),
        Option("XX", "condition", constant=Condition.IF_THERE),
        Option("EX", "expiry", integer("EX", 1, EXPIRY_MAX_S), type="integer", argument="seconds"),
    ),
)


def add(context: Context, args: list[bytes]) -> Any:
    server = context.server
    limits = server.settings.limits
    id_ = args[2]
    _check_id(id_, limits)
    vector, position = parse_vector(args, 3, limits, element=False)
    options = _ADD_OPTIONS.parse(args, position, limits)
    index = server.service.index(context.client.tenant, args[1])
    if vector.text is not None:
        then = partial(_add, id_=id_, options=options)
        return with_text(context, index, vector.text, then, writes=True)
    return _add(context, index, vector.resolve(index), id_, options)


def _add(
    context: Context, index: OpenIndex, blob: bytes, id_: bytes, options: Mapping[str, Any]
) -> Pending:
    server = context.server
    attributes = options.get("attributes")
    expiry = options.get("expiry")
    write = PutVectors(
        ids=(id_,),
        vectors=np.frombuffer(blob, dtype="<f4").reshape(1, -1),
        attributes=None if attributes is None else (attributes,),
        expires_at_ms=0 if expiry is None else int((server.clock.wall() + expiry) * 1000),
        condition=options.get("condition", Condition.ALWAYS),
        future=asyncio.get_running_loop().create_future(),
    )
    account = context.account
    server.service.admit_vectors(account, index, write, len(blob))
    index.write(write)
    return Pending(write.future, partial(_added, account, index))


def _has_text(args: list[bytes]) -> bool:
    return args[3].upper() == b"TEXT"


def _added(
    account: Account | None, index: OpenIndex, outcome: int | None, protocol: int
) -> bool | None:
    # What NX or XX has kept from being written is not charged for.
    if account is not None and outcome is not None:
        account.charge(index.costs.add(1))
    return _as_yes_no(outcome, protocol)


# -- MADD ----------------------------------------------------------------------------------------


def _counted(args: list[bytes], position: int, word: str) -> list[bytes]:
    """The n arguments that follow ``word n`` at `position`."""
    count = parse_integer(args[position + 1]) if position + 1 < len(args) else None
    if count is None or count < 1:
        raise CommandError(f"invalid {word}: a number of at least 1 is expected")
    values = args[position + 2 : position + 2 + count]
    if len(values) != count:
        raise CommandError(f"invalid {word}: {count} arguments are announced, {len(values)} follow")
    return values


def _madd_arguments(args: list[bytes]) -> tuple[list[bytes], list[bytes] | None]:
    """The ids, and the attributes if there are any."""
    if args[2].upper() != b"FP32":
        raise CommandError("invalid vector specification: FP32 is expected")
    found: dict[bytes, list[bytes]] = {}
    position = 4
    while position < len(args):
        word = args[position].upper()
        if word not in (b"IDS", b"ATTRS") or word in found:
            raise CommandError("syntax error in VECTOR.MADD command")
        found[word] = _counted(args, position, word.decode())
        position += 2 + len(found[word])
    if b"IDS" not in found:
        raise CommandError("syntax error in VECTOR.MADD command: IDS is missing")
    attributes = found.get(b"ATTRS")
    if attributes is not None and len(attributes) != len(found[b"IDS"]):
        raise CommandError(
            f"invalid ATTRS: {len(attributes)} attributes for {len(found[b'IDS'])} ids"
        )
    return found[b"IDS"], attributes


def _check_many(
    ids: Sequence[bytes], attributes: Sequence[bytes] | None, limits: LimitSettings
) -> list[Attributes] | None:
    """Check ids and read attributes."""
    lengths = list(map(len, ids))
    if min(lengths) < 1 or max(lengths) > limits.id_bytes:
        for id_ in ids:
            _check_id(id_, limits)
    if attributes is None:
        return None
    return [_to_attributes(raw, limits) for raw in attributes]


def madd(context: Context, args: list[bytes]) -> Coroutine[Any, Any, int | None]:
    ids, raw_attributes = _madd_arguments(args)
    blob = args[3]
    if not blob or len(blob) % (4 * len(ids)):
        raise DimensionError(
            f"{len(blob)} bytes are not {len(ids)} vectors of float32: their length must be a "
            f"multiple of {4 * len(ids)}"
        )
    tenant = context.client.tenant
    return _madd(context, context.account, tenant, args[1], blob, ids, raw_attributes)


async def _madd(
    context: Context,
    account: Account | None,
    tenant: str,
    name: bytes,
    blob: bytes,
    ids: list[bytes],
    raw_attributes: list[bytes] | None,
) -> int | None:
    server = context.server
    service = server.service
    dim = len(blob) // (4 * len(ids))
    limits = server.settings.limits
    if raw_attributes is None and len(blob) <= _CHECKED_AT_ONCE_BYTES:
        # A hundred microseconds: waiting for a thread may take longer.
        check_rows(blob, dim)
        attributes = _check_many(ids, None, limits)
    else:
        await service.run(check_rows, blob, dim)
        attributes = await service.run(_check_many, ids, raw_attributes, limits)
    index = service.index(tenant, name)
    if dim != index.spec.dim:
        raise DimensionError(
            f"Vector dimension mismatch - got {dim} but index has {index.spec.dim}"
        )
    vectors = np.frombuffer(blob, dtype="<f4").reshape(len(ids), dim)
    if len(set(ids)) != len(ids):
        # An id that is given twice has the vector that was given last.
        last = {id_: position for position, id_ in enumerate(ids)}
        kept = sorted(last.values())
        ids = [ids[position] for position in kept]
        vectors = vectors[kept]
        attributes = None if attributes is None else [attributes[position] for position in kept]
    write = PutVectors(
        ids=ids,
        vectors=vectors,
        attributes=attributes,
        expires_at_ms=0,
        condition=Condition.ALWAYS,
        future=asyncio.get_running_loop().create_future(),
    )
    service.admit_vectors(account, index, write, vectors.nbytes)
    index.write(write)
    added = await write.future
    if account is not None:
        account.charge(index.costs.add(len(ids)))
    return added


# -- the others ----------------------------------------------------------------------------------

_GET_OPTIONS = OptionTable(
    "VECTOR.GET",
    (
        Option(
            "WITHVECTOR",
            "form",
            choice("WITHVECTOR", {b"FP32": "FP32", b"VALUES": "VALUES"}),
            argument="FP32|VALUES",
        ),
    ),
)


def get(context: Context, args: list[bytes]) -> dict[str, Any] | None:
    server = context.server
    options = _GET_OPTIONS.parse(args, 3, server.settings.limits)
    index = server.service.index(context.client.tenant, args[1])
    index.remove_expired()
    id_ = args[2]
    vector = index.vector(id_)
    if vector is None:
        return None
    told: dict[str, Any] = {"id": id_, "attr": index.attributes_of(id_)}
    form = options.get("form")
    if form == "FP32":
        told["vector"] = vector
    elif form == "VALUES":
        told["vector"] = np.frombuffer(vector, dtype="<f4").tolist()
    expires_at_ms = index.state.expires_at_ms.get(id_)
    if expires_at_ms is not None:
        left = expires_at_ms / 1000 - server.clock.wall()
        told["ttl"] = max(0, round(left))
    return told


def delete(context: Context, args: list[bytes]) -> Pending:
    index = context.server.service.index(context.client.tenant, args[1])
    write = RemoveVectors(args[2:], asyncio.get_running_loop().create_future())
    index.write(write)
    return Pending(write.future, partial(_removed, context.account, index))


def _removed(account: Account | None, index: OpenIndex, outcome: int, _protocol: int) -> int:
    if account is not None:
        account.charge(index.costs.change(outcome))
    return outcome


def exists(context: Context, args: list[bytes]) -> bool:
    index = context.server.service.index(context.client.tenant, args[1])
    index.remove_expired()
    return args[2] in index.state.ids


def card(context: Context, args: list[bytes]) -> int:
    index = context.server.service.index(context.client.tenant, args[1])
    index.remove_expired()
    return len(index)


_SCAN_OPTIONS = OptionTable(
    "VECTOR.SCAN", (Option("COUNT", "count", integer("COUNT", 1, "count"), type="integer"),)
)


def scan(context: Context, args: list[bytes]) -> list[Any]:
    cursor = parse_integer(args[2])
    if cursor is None or cursor < 0:
        raise CommandError("invalid cursor")
    options = _SCAN_OPTIONS.parse(args, 3, context.server.settings.limits)
    index = context.server.service.index(context.client.tenant, args[1])
    index.remove_expired()
    following, found = index.state.ids.scan(cursor, options.get("count", _SCAN_COUNT))
    return [str(following), found]


def setattr_(context: Context, args: list[bytes]) -> Pending:
    attributes = _to_attributes(args[3], context.server.settings.limits)
    index = context.server.service.index(context.client.tenant, args[1])
    future = asyncio.get_running_loop().create_future()
    account = context.account
    context.server.service.admit_bytes(account, index, len(args[3]))
    index.write(ReplaceAttributes((args[2],), attributes, future))
    return Pending(future, partial(_changed, account, index))


def _changed(
    account: Account | None, index: OpenIndex, outcome: int | None, protocol: int
) -> bool | None:
    if account is not None and outcome:
        account.charge(index.costs.change(1))
    return _as_yes_no(outcome, protocol)


def getattr_(context: Context, args: list[bytes]) -> bytes | None:
    index = context.server.service.index(context.client.tenant, args[1])
    index.remove_expired()
    return index.attributes_of(args[2])


_READ = frozenset({"readonly", "fast"})
_READ_CATEGORIES = frozenset({"read", "vector", "fast"})
_WRITE = frozenset({"write", "denyoom"})
_WRITE_CATEGORIES = frozenset({"write", "vector", "slow"})
_INDEX = Argument("index", "key")
_ID = Argument("id")

COMMANDS = (
    Command(
        "VECTOR.ADD", -5, add,
        "Adds a vector, or replaces the one under the id. Attributes stay as they are unless "
        "SETATTR is given (an empty string removes them); an expiry goes unless EX is given.",
        GROUP, access=Access.WRITE, flags=_WRITE, categories=_WRITE_CATEGORIES, has_index=True,
        arguments=(_INDEX, _ID, VECTOR_ARGUMENT, *_ADD_OPTIONS.describe()), defers=_has_text,
        complexity="O(1); merging follows in the background",
        returns="1 new | 0 updated | null (NX or XX not met)",
    ),
    Command(
        "VECTOR.MADD", -7, madd,
        "Adds or replaces many vectors, all of them or none. An id that is given twice has the "
        "vector that was given last.",
        GROUP, access=Access.EXCLUSIVE, flags=_WRITE, categories=_WRITE_CATEGORIES, has_index=True,
        arguments=(
            _INDEX,
            Argument("blob", "string", "FP32"),
            Argument(
                "ids", "block", "IDS",
                arguments=(Argument("n", "integer"), Argument("id", multiple=True)),
            ),
            Argument(
                "attrs", "block", "ATTRS", optional=True,
                arguments=(Argument("n", "integer"), Argument("json", multiple=True)),
            ),
        ),
        complexity="O(n); merging follows in the background",
        returns="number of new ids",
    ),
    Command(
        "VECTOR.GET", -3, get, "Tells what is stored under an id.",
        GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES, has_index=True,
        arguments=(_INDEX, _ID, *_GET_OPTIONS.describe()),
        returns="map: id, attr, vector (if asked for), ttl in seconds (if it expires) | null",
    ),
    Command(
        "VECTOR.DEL", -3, delete, "Removes vectors.",
        GROUP, access=Access.WRITE, flags=frozenset({"write"}), categories=_WRITE_CATEGORIES,
        has_index=True, arguments=(_INDEX, Argument("id", multiple=True)),
        complexity="O(n)", returns="number removed",
    ),
    Command(
        "VECTOR.EXISTS", 3, exists, "Tells whether an id is there.",
        GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES, has_index=True,
        arguments=(_INDEX, _ID), returns="1 | 0",
    ),
    Command(
        "VECTOR.CARD", 2, card, "Counts the vectors of an index.",
        GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES, has_index=True,
        arguments=(_INDEX,), returns="number of vectors",
    ),
    Command(
        "VECTOR.SCAN", -3, scan,
        "Walks over the ids. Every id that is there from the first call to the last is returned "
        "exactly once.",
        GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES, has_index=True,
        arguments=(_INDEX, Argument("cursor", "integer"), *_SCAN_OPTIONS.describe()),
        complexity="O(COUNT)", returns="[next cursor (0: done), [id …]]",
    ),
    Command(
        "VECTOR.SETATTR", 4, setattr_,
        "Replaces the attributes of a vector; an empty string removes them.",
        GROUP, access=Access.WRITE, flags=_WRITE, categories=_WRITE_CATEGORIES, has_index=True,
        arguments=(_INDEX, _ID, Argument("json")), returns="1 | 0 (no such id)",
    ),
    Command(
        "VECTOR.GETATTR", 3, getattr_, "Tells the attributes of a vector.",
        GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES, has_index=True,
        arguments=(_INDEX, _ID), returns="JSON | null",
    ),
)  # fmt: skip
