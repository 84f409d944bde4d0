"""The files of the page: its own, and those of others, as they came."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import pyrope.http
from control import asking, problem
from servers import RunningServer

STATIC = Path(pyrope.http.__file__).parent / "static"
VENDORED = (STATIC / "vendor", Path(__file__).parent / "vendor")


@pytest.fixture
def anybody(control: RunningServer) -> Iterator[httpx2.Client]:
    with asking(control) as client:
        yield client


def test_the_page_loads_nothing_from_elsewhere_and_lets_nothing_become_markup(
    anybody: httpx2.Client,
) -> None:
    page = anybody.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'; style-src 'self'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    # Neither scripts nor styles within the page: the policy would refuse them.
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page.text)
    loaded = set(re.findall(r'(?:src|href)="([^"#]+)"', page.text)) - {"docs"}
    assert len(loaded) >= 5
    scripts = {path.name for path in (STATIC / "dashboard").glob("*.js")}
    for name in loaded | {f"dashboard/{script}" for script in scripts}:
        found = anybody.get(f"/{name}")
        assert found.status_code == 200, name
        assert found.headers["x-content-type-options"] == "nosniff"
        if name.startswith("dashboard/") and not name.endswith(".svg"):
            text = found.text
            assert not re.search(r"https?://|@import|innerHTML|outerHTML|eval\(", text), name
            for module in re.findall(r'from "\./(.+)"', text):
                assert module in scripts


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/nothing.js",
        "/dashboard/",
        "/dashboard/..%2f..%2fapp.py",
        "/dashboard/%2e%2e",
        "/vendor/uPlot.LICENSE",
        "/vendor/README.md",
        "/dashboard/dashboard.css%00.js",
    ],
)
def test_there_are_no_other_files(anybody: httpx2.Client, path: str) -> None:
    problem(anybody.get(path), 404, "ERR")


@pytest.mark.parametrize("folder", VENDORED, ids=lambda folder: folder.parent.name)
def test_libraries_of_others_are_as_they_came_and_say_under_which_licence(folder: Path) -> None:
    table = (folder / "README.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"\| `([\w.]+)` \| `([0-9a-f]{64})` \|", table))
    there = {path.name: path for path in folder.iterdir() if path.suffix in {".js", ".css"}}
    assert named.keys() == there.keys()
    for name, digest in named.items():
        assert hashlib.sha256(there[name].read_bytes()).hexdigest() == digest
    licences = re.findall(r"\]\(([\w.-]*LICENSE[\w.-]*)\)", table)
    assert licences
    assert all((folder / name).stat().st_size > 500 for name in licences)
