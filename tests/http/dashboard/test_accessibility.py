"""The page can be used without seeing it, or seeing it badly: judged by axe-core (WCAG 2.2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from browsing import Dashboard, chromium, needs_chromium
from control import control_server
from servers import RunningServer
from tenancy import PASSWORD, administrator, search, tenant

pytestmark = needs_chromium

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def used() -> Iterator[RunningServer]:
    settings: dict[str, Any] = {"http": {"requests_per_s": 0}, "slowlog": {"slower_than_us": 0}}
    with control_server(admin_password=PASSWORD, **settings) as server:
        with administrator(server) as wire:
            wire.execute_command("VECTOR.CREATE", "films", "DIM", 4)
            rows = np.random.default_rng(1).standard_normal((400, 4)).astype("<f4")
            ids = [f"v{number}" for number in range(400)]
            # So many clusters, of which each of the shades of heat has some.
            wire.execute_command("VECTOR.CLUSTER", "SET", "films", "FP32", rows[:60].tobytes())
            wire.execute_command("VECTOR.CACHE", "POLICY", "films", "SET", "HOTWRITES", 9)
            wire.execute_command("VECTOR.MADD", "films", "FP32", rows.tobytes(), "IDS", 400, *ids)
            for row in rows[:20]:
                search(wire, "films", *row.tolist())
            tenant(wire, "CREATE", "acme", "BUDGET", 1)
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def complaints(board: Dashboard) -> list[str]:
    """What axe finds wrong with the page as it is, and where."""
    page = board.page
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE)
    found = page.evaluate("(tags) => axe.run(document, { runOnly: tags })", RULES)
    assert len(found["passes"]) > 10
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
def test_axe_finds_nothing_wrong(
    browser: Browser, used: RunningServer, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    board = Dashboard(browser, used, color_scheme=scheme, viewport=size).open()
    expect(board.page.locator("#sign-in")).to_be_visible()
    board.sign_in("admin", "wrong")
    expect(board.page.get_by_role("alert")).not_to_be_empty()
    assert complaints(board) == []
    board.sign_in("admin", PASSWORD).wait_until_live()
    form = board.page.locator("#search-form")
    form.get_by_label("Query").fill("v1")
    form.get_by_role("button", name="Search").click()
    expect(board.page.locator("#hits tbody tr")).to_have_count(10)
    shades = board.page.locator("#heat").evaluate(
        "(list) => new Set([...list.querySelectorAll('button')].map((one) => one.className)).size"
    )
    assert shades >= 4
    assert complaints(board) == []
    board.close()


def test_every_control_shows_its_focus(browser: Browser, used: RunningServer) -> None:
    board = Dashboard(browser, used).open().sign_in("admin", PASSWORD).wait_until_live()
    # What is focused from now on is as if the keyboard had brought it there.
    board.page.keyboard.press("Tab")
    outlines = board.page.evaluate(
        "(controls) => [...document.querySelectorAll(controls)]"
        ".filter((one) => one.checkVisibility())"
        ".map((one) => { one.focus(); return getComputedStyle(one).outlineWidth; })",
        "a, button, input, select, textarea, [tabindex='0']",
    )
    assert len(outlines) > 20
    assert set(outlines) == {"3px"}
    board.close()
