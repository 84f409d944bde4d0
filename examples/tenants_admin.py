"""Tenants: keys, roles, quotas and bills, seen from both sides.

PYROPE_ADMIN_PASSWORD=change-me make run          # in another terminal
PYROPE_ADMIN_PASSWORD=change-me python examples/tenants_admin.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np

from pyrope.client import Client
from pyrope.errors import NoIndexError, NoPermError, QuotaError, WrongPassError

TENANT = "example-acme"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Administer tenants.")
    parser.add_argument("--url", default="redis://127.0.0.1:7379", help="without a key")
    url = parser.parse_args(arguments).url
    password = os.environ.get("PYROPE_ADMIN_PASSWORD")
    if not password:
        sys.exit("set PYROPE_ADMIN_PASSWORD to the server's")
    with Client(url, tenant="admin", key=password) as admin:
        admin.tenants.drop(TENANT)
        # The key is shown this once. 100 requests a second, 50 vectors, a monthly budget.
        key = admin.tenants.create(
            TENANT, qps=100, burst=5, max_vectors=50, budget=1_000_000, priority="LOW"
        )
        reader_key = admin.tenants.add_user(TENANT, "bob", "reader")
        print("tenants:", *admin.tenants.list())
        try:
            use(url, key, reader_key)
            show(admin)
            rotate(admin, url, key)
        finally:
            admin.tenants.drop(TENANT)
    print("gone, with all it had")


def use(url: str, key: str, reader_key: str) -> None:
    """What the tenant and its user may do, and what they may not."""
    vectors = np.random.default_rng(3).standard_normal((60, 8))
    with Client(url, tenant=TENANT, key=key) as tenant:
        tenant.create("docs", 8)
        tenant.add_many("docs", [f"d{number}" for number in range(40)], vectors[:40])
        try:
            tenant.add_many("docs", [f"e{number}" for number in range(20)], vectors[40:])
        except QuotaError as refused:
            print("refused:", refused)
        # More than five at once: the client waits for as long as the server tells it to.
        for vector in vectors[:20]:
            tenant.search("docs", vector, count=1)
        print("20 searches, at no more than 100 a second")
    with Client(url, tenant=f"{TENANT}.bob", key=reader_key) as bob:
        print("bob finds", bob.search("docs", vectors[3], count=1).ids)
        try:
            bob.delete("docs", "d3")
        except NoPermError as refused:
            print("refused:", refused)


def show(admin: Client[str]) -> None:
    """What has been used; and that an index is nobody else's."""
    usage = admin.tenants.usage(TENANT)
    print(f"{usage.period}: {usage.requests} requests, {usage.vectors} vectors", end=", ")
    print(f"{usage.used:,.0f} units used, {usage.remaining:,.0f} left")
    try:
        admin.count("docs")
    except NoIndexError as unseen:
        print("to others:", unseen)


def rotate(admin: Client[str], url: str, key: str) -> None:
    """Replace the key, without an overlap."""
    fresh = admin.tenants.rotate(TENANT, overlap_s=0)
    with Client(url, tenant=TENANT, key=fresh) as tenant:
        print("by the new key:", *tenant.list())
    try:
        with Client(url, tenant=TENANT, key=key) as tenant:
            tenant.list()
    except WrongPassError as refused:
        print("by the old one:", refused)


if __name__ == "__main__":
    main()
