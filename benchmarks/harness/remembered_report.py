"""The page of `benchmarks.remembered`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def page(result: dict[str, Any]) -> str:
    """Markdown of all parts that were measured."""
    lines = [
        "# Remembered responses",
        "",
        f"`{result['command']}`; {result['seconds']} s.",
        f"{result['pairs']:,} pairs ({result['data']}), {result['same']:,} of them the same.",
        f"Vectors: {result['embedder']}.",
        "In parentheses: 95 % intervals, over pairs by bootstrap over connected components;",
        "Clopper and Pearson's where that is wider.",
    ]
    if "rows" in result:
        lines += ["", "## Pairs", ""]
        lines += _table(
            ("policy", "asked", "hits", "errors among hits"),
            (
                (row["policy"], row["asked"], _share(row["hits"]), _share(row["errors"]))
                for row in result["rows"]
            ),
        )
    if "stream" in result:
        lines += ["", "## Stream", ""]
        lines += _table(
            (
                "MAXERROR",
                "verifier right",
                "hits",
                "right hits of all possible",
                "errors among hits",
                "exact / verified / near",
                "verified pairs",
                "its accuracy as estimated",
            ),
            (
                (
                    f"{row['max_error']}",
                    f"{row['verifier']:.0%}",
                    _share(row["hits"]),
                    f"{row['of_possible']:.1%} of {row['possible']:,}",
                    _share(row["errors"]),
                    f"{row['exact']:,} / {row['verified']:,} / {row['near']:,}",
                    f"{row['asked_verifier']:,}",
                    f"{row['verifier_accuracy']:.1%}",
                )
                for row in result["stream"]
            ),
        )
    if "shift" in result:
        lines += ["", "## Other labels than the prior's, MAXERROR 0.1", ""]
        lines += _table(
            ("labels", "who teaches", "pairs", "hits", "errors among hits"),
            (
                (
                    row["shift"],
                    row["teaching"],
                    row["requests"],
                    _share(row["hits"]),
                    _share(row["errors"]),
                )
                for row in result["shift"]
            ),
        )
    if "plain" in result:
        plain = result["plain"]
        lines += ["", "## Pairs that plainly differ", ""]
        cases = [(kind, _share(of)) for kind, of in plain["cases"].items()]
        lines += _table(("kind", "stopped"), [*cases, ("all", _share(plain["all"]))])
        lines += ["", "Of pairs that are the same, refused:", ""]
        refused = [(name, _share(of)) for name, of in plain["refused_by"].items()]
        lines += _table(("guard", "refused"), [*refused, ("any", _share(plain["refused"]))])
    return "\n".join(lines) + "\n"


def _share(record: dict[str, float]) -> str:
    if not record["of"]:
        return "-"
    return f"{record['share']:.2%} ({record['low']:.2%} to {record['high']:.2%})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
