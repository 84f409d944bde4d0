"""The command reference in docs/."""

from __future__ import annotations

from pathlib import Path

from pyrope.commands.reference import render, usage
from pyrope.commands.table import build_table

ROOT = Path(__file__).parents[2]


def test_the_reference_is_what_the_table_says() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == render(build_table()), "run `make docs`"


def test_every_command_and_subcommand_is_on_the_page() -> None:
    table = build_table()
    page = render(table)
    for command in table.values():
        for each in (command, *command.subcommands.values()):
            if each.handler is not None and not each.name.endswith("|HELP"):
                assert f"### {each.name.replace('|', ' ')}\n" in page


def test_usage_is_written_as_redis_writes_it() -> None:
    table = build_table()
    assert usage(table[b"VECTOR.ADD"]) == (
        "VECTOR.ADD index id <FP32 blob | VALUES n value [value ...] | TEXT text> [SETATTR json] "
        "[NX | XX] [EX seconds]"
    )
    assert usage(table[b"VECTOR.SEARCH"]).startswith(
        "VECTOR.SEARCH index <FP32 blob | VALUES n value [value ...] | TEXT text | ELE id> "
        "[COUNT k | TOPK k] [WITHSCORES]"
    )
    assert usage(table[b"VECTOR.CREATE"]).startswith("VECTOR.CREATE index [DIM dim] [METRIC")
