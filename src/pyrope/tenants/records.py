"""Tenants as they are stored: JSON for people, a checksum for the disk.

A record is one JSON object, a space, and 16 hexadecimal digits: BLAKE2b of the JSON, 64 bits. The
name is the record's key in the store and is hashed with it, so that a record that has come under
another name is a damaged one. Limits that are the defaults, keys that there are none of and empty
sets of users are left out; ``v`` is the version of this form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from pyrope.errors import CommandError
from pyrope.tenants.keys import DIGEST_BYTES, SALT_BYTES, HashedKey
from pyrope.tenants.limit_fields import pack_fields
from pyrope.tenants.names import is_tenant_name, is_user_name
from pyrope.tenants.tenant import NO_USERS, Role, Tenant, User

VERSION: Final = 1

_CHECKSUM_DIGITS: Final = 16
_encode_json = json.JSONEncoder(separators=(",", ":")).encode


class TenantRecordError(Exception):
    """A record that is damaged, or that another version of Pyrope has written.

    For the operator, when the server starts. The message names the tenant and says what to do.
    """


def encode_tenant(tenant: Tenant) -> bytes:
    """The record of a tenant; see `decode_tenant`."""
    record: dict[str, Any] = {"v": VERSION, "created_at": tenant.created_at, **_keys(tenant)}
    if tenant.packed_limits:
        record["limits"] = json.loads(tenant.packed_limits)
    if tenant.users:
        record["users"] = {
            user.name: {"role": user.role.value, **_keys(user)} for user in tenant.users.values()
        }
    text = _encode_json(record).encode()
    return text + b" " + _checksum(tenant.name, text)


def decode_tenant(name: str, blob: bytes) -> Tenant:
    """The tenant that was stored under a name.

    Raises:
        TenantRecordError: the record is damaged, or of another version.
    """
    text, checksum = blob[: -_CHECKSUM_DIGITS - 1], blob[-_CHECKSUM_DIGITS - 1 :]
    if not is_tenant_name(name) or checksum != b" " + _checksum(name, text):
        raise _damaged(name, "its checksum does not fit")
    try:
        record = json.loads(text)
        version = record["v"]
        if version == VERSION:
            return _decode(name, record)
    except (ValueError, KeyError, TypeError, AttributeError, CommandError) as error:
        raise _damaged(name, repr(error)) from error
    raise TenantRecordError(
        f"the record of tenant '{name}' has version {version!r}, and this Pyrope reads {VERSION}: "
        "start the version that has written it"
    )


def _damaged(name: str, why: str) -> TenantRecordError:
    return TenantRecordError(
        f"the record of tenant {name[:128]!r} is damaged ({why}): restore the data directory from "
        "a backup"
    )


def _decode(name: str, record: Mapping[str, Any]) -> Tenant:
    created_at = float(record["created_at"])
    if not math.isfinite(created_at):
        raise ValueError("created_at is no time")
    users = NO_USERS
    if "users" in record:
        users = {one: _decode_user(one, plain) for one, plain in record["users"].items()}
    return Tenant(
        name,
        created_at,
        _decode_key(record["key"]),
        _decode_key(record["former"]) if "former" in record else None,
        users,
        pack_fields(record["limits"]) if "limits" in record else b"",
    )


def _decode_user(name: str, plain: Mapping[str, Any]) -> User:
    if not is_user_name(name):
        raise ValueError("a user's name is none")
    former = _decode_key(plain["former"]) if "former" in plain else None
    return User(name, Role(plain["role"]), _decode_key(plain["key"]), former)


def _keys(owner: Tenant | User) -> dict[str, Any]:
    keys = {"key": _plain_key(owner.key)}
    if owner.former is not None:
        keys["former"] = _plain_key(owner.former)
    return keys


def _plain_key(key: HashedKey) -> str | list[Any]:
    packed = key.packed.hex()
    return packed if key.expires_at is None else [packed, key.expires_at]


def _decode_key(plain: Any) -> HashedKey:
    packed, expires_at = (plain, None) if isinstance(plain, str) else plain
    key = HashedKey(bytes.fromhex(packed), None if expires_at is None else float(expires_at))
    if len(key.packed) != SALT_BYTES + DIGEST_BYTES:
        raise ValueError("a key's hash has another length")
    return key


def _checksum(name: str, text: bytes) -> bytes:
    whole = blake2b(name.encode() + b"\0" + text, digest_size=_CHECKSUM_DIGITS // 2)
    return whole.hexdigest().encode()
