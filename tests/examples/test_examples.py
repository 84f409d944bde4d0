"""The examples do what they say, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from servers import RunningServer
from tenancy import PASSWORD, administrator, tenant, tenant_server

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(name: str, server: RunningServer, typed: str = "", **environment: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "--url", f"redis://127.0.0.1:{server.port}"],
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_search_for_retrieval_comes_from_memory_and_stays_true(server: RunningServer) -> None:
    told = run("rag_search.py", server).splitlines()
    places = [number for number, line in enumerate(told) if line.endswith("]")]
    assert [told[place] for place in places] == [
        "How many days of holiday do I get?  [miss]",
        "How many days of holiday do I get?  [exact]",
        "How much is paid for meals on a trip?  [miss]",
        "how many vacation days are there?  [alias]",
        "How many days of holiday do I get?  [exact]",
    ]
    best = [told[place + 1].split("  ")[-1] for place in places]
    assert best[0] == best[1] == best[3]
    assert best[0].startswith("leave: Employees have 28 days")
    assert best[2].startswith("meals: On business trips")
    assert best[4].startswith("leave: From next year on")
    assert told[-1] == "3 of 5 searches came from memory"
    with server.client() as client:
        assert client.execute_command("VECTOR.LIST") == []


def test_searches_run_at_the_same_time_in_asyncio(server: RunningServer) -> None:
    assert run("asyncio_client.py", server).splitlines() == [
        "5000 new vectors, 5000 in all",
        "400 of 400 vectors found themselves, while 100 others were moved",
        "together: p100 p101 p102 p103 p104 p105 p106 p107 p108 p109",
        "5000 ids",
    ]


def test_tenants_are_administered_and_leave_nothing() -> None:
    with tenant_server() as server:
        told = run("tenants_admin.py", server, PYROPE_ADMIN_PASSWORD=PASSWORD)
        with administrator(server) as admin:
            assert tenant(admin, "LIST") == []
    for line in (
        "tenants: example-acme",
        "refused: 50 vectors are allowed to tenant 'example-acme', which has 40, and 20 more",
        "20 searches, at no more than 100 a second",
        "bob finds ['d3']",
        "40 vectors, ",
        "to others: no such index 'docs'",
        "by the new key: docs",
        "by the old one: this key has expired",
        "gone, with all it had",
    ):
        assert line in told


def test_a_chat_remembers_what_was_asked_in_other_words(server: RunningServer) -> None:
    typed = (
        "How do I reset my password?", "Do you deliver?", "/new",
        "How can I reset my password?", "/new",
        "How do I not reset my password?", "/wrong", "/new",
        "How do I reset my password?", "/wrong", "/new",
        "How do I reset my password?", "",
    )  # fmt: skip
    told = run("chat_loop.py", server, typed="\n".join(typed)).splitlines()
    assert [line for line in told if line.startswith("  [")] == [
        "  [from the model]",
        "  [from the model]",
        "  [from memory, near: How do I reset my password?]",
        "  [from the model]",
        "  [the last answer is not from memory]",
        "  [from memory, exact: How do I reset my password?]",
        "  [it is not said again]",
        "  [from the model]",
    ]
    assert (
        told[0]
        == told[4]
        == "Click on the link below the form, and you get an e-mail to set a new one."
    )
    assert told[-1] == "2 of 6 answers came from memory"


def test_an_administrator_without_a_password_is_told_so(server: RunningServer) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "tenants_admin.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYROPE_ADMIN_PASSWORD"},
    )
    assert (done.returncode, done.stderr) == (1, "set PYROPE_ADMIN_PASSWORD to the server's\n")
