"""The dashboard in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from playwright.sync_api import Browser, expect

from browsing import Dashboard, chromium, needs_chromium, number_in
from control import control_server
from servers import RunningServer, free_port
from tenancy import PASSWORD, add, administrator, as_map, search, signed_in, tenant

pytestmark = needs_chromium

KEY = "k" * 20
HOSTILE = '<img src=x onerror="hacked=1"><script>hacked=1</script>\'"&amp;'
ROWS = np.random.default_rng(1).standard_normal((1000, 8)).astype("<f4")


def fill(wire: redis.Redis) -> None:
    """An index with a bit of everything, and two tenants."""
    wire.execute_command("VECTOR.CREATE", "films", "DIM", 8, "TYPE", "FLAT", "CACHE", "ALL")
    ids = [f"v{number}" for number in range(len(ROWS))]
    wire.execute_command("VECTOR.MADD", "films", "FP32", ROWS.tobytes(), "IDS", len(ids), *ids)
    wire.execute_command("VECTOR.CLUSTER", "SET", "films", "FP32", ROWS[:30].tobytes())
    wire.execute_command("VECTOR.SETATTR", "films", "v1", json.dumps({"title": HOSTILE}))
    add(wire, "films", HOSTILE, *(ROWS[1] * np.float32(1.01)).tolist())
    wire.execute_command("VECTOR.ALIAS", "SET", "films", "what?", "which?")
    for row in ROWS[:20]:
        for _ in range(3):
            search(wire, "films", *row.tolist())
        search(wire, "films", *(row + np.float32(1e-4)).tolist(), options=("MINRECALL", 0.1))
    for row, text in ((ROWS[300], "which?"), (ROWS[301], "what?")):
        search(wire, "films", *row.tolist(), options=("QUERY", text))
    search(wire, "films", *ROWS[0].tolist(), options=("CACHE", "OFF"))
    for number in range(100):
        add(wire, "films", f"v{number}", *ROWS[0].tolist())
    search(wire, "films", *ROWS[2].tolist(), options=("QUERY", HOSTILE))
    tenant(wire, "CREATE", "acme", "KEY", KEY, "BUDGET", 100, "ONBUDGET", "DEGRADE")
    tenant(wire, "CREATE", "globex", "KEY", KEY)


@pytest.fixture(scope="module")
def busy() -> Iterator[RunningServer]:
    """A server that has been used, and that nobody uses now but the page."""
    settings: dict[str, Any] = {
        "http": {"requests_per_s": 0},
        "slowlog": {"slower_than_us": 0},
    }
    with control_server(admin_password=PASSWORD, **settings) as server:
        with administrator(server) as wire:
            fill(wire)
        with signed_in(server, "acme", KEY) as acme:
            acme.execute_command("VECTOR.CREATE", "mine", "DIM", 2)
            add(acme, "mine", "x", 1, 2)
            search(acme, "mine", 1, 1)
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


Visit = Callable[..., Dashboard]


@pytest.fixture
def visit(busy: RunningServer, browser: Browser) -> Iterator[Visit]:
    """Opens the page of the busy server, in a window with these properties."""
    opened: list[Dashboard] = []

    def open_(**options: Any) -> Dashboard:
        opened.append(Dashboard(browser, busy, **options))
        return opened[-1].open()

    yield open_
    for one in opened:
        one.close()
    assert [mistake for one in opened for mistake in one.mistakes] == []


@pytest.fixture
def board(visit: Visit) -> Dashboard:
    """As the administrator sees it."""
    return visit().sign_in("admin", PASSWORD).wait_until_live()


def info(server: RunningServer) -> dict[str, Any]:
    with administrator(server) as wire:
        told: dict[str, Any] = wire.info("everything")
        return told


# -- figures ------------------------------------------------------------------------------------


def test_the_numbers_on_the_page_are_those_of_info(busy: RunningServer, board: Dashboard) -> None:
    told = info(busy)
    lookups = told["cache_hits"] + told["cache_misses"]
    assert told["cache_hits_exact"] > 0
    assert told["cache_hits_quantized"] + told["cache_hits_cluster"] > 0
    assert told["cache_hits_alias"] > 0
    assert told["cache_uncached"] > 0
    board.until(lambda: board.number("queries") == lookups + told["cache_uncached"])
    assert {
        "misses": board.number("misses"),
        "uncached": board.number("uncached"),
        "repairs": board.number("repairs"),
        "stale": board.number("stale"),
        "near_refused": board.number("near_refused"),
        "entries": board.number("entries"),
        "audits": board.number("audits"),
        "skipped": board.number("audits_skipped"),
        "errors": board.number("errors"),
    } == {
        "misses": told["cache_misses"],
        "uncached": told["cache_uncached"],
        "repairs": told["cache_repairs"],
        "stale": told["cache_stale"],
        "near_refused": told["cache_near_refused"],
        "entries": told["cache_entries"],
        "audits": told["cache_audits"],
        "skipped": told["cache_audits_skipped"],
        "errors": told["total_error_replies"],
    }
    vectors = sum(value["vectors"] for key, value in told.items() if key.startswith("index"))
    assert board.number("vectors") == vectors
    assert board.number("saved") == pytest.approx(told["cache_cost_saved"], abs=0.5)
    assert board.number("spent") == pytest.approx(told["compute_units"], abs=0.5)
    assert board.number("hit_ratio") == pytest.approx(100 * told["cache_hit_ratio"], abs=0.06)
    levels = board.table("levels")
    for level in ("exact", "alias", "quantized", "cluster", "prefetch"):
        hits = told[f"cache_hits_{level}"]
        assert number_in(levels[level][0]) == hits
        assert number_in(levels[level][1]) == pytest.approx(100 * hits / lookups, abs=0.06)
    model = board.facts("#llm")
    assert model["state"] == "off"
    assert number_in(model["tokens in"]) == told["tokens_in"]


def test_tenants_indexes_and_the_slow_log_are_those_of_the_commands(
    busy: RunningServer, board: Dashboard
) -> None:
    with administrator(busy) as wire:
        used = as_map(tenant(wire, "USAGE", "acme"))
        films = as_map(wire.execute_command("VECTOR.INFO", "films"))
        slow = wire.execute_command("SLOWLOG", "GET", 128)
    acme = board.table("tenants")["acme"]
    share = 100 * float(used["used"]) / 100
    assert number_in(acme[0]) == pytest.approx(share, abs=0.06)
    assert number_in(acme[2]) == pytest.approx(float(used["used"]), rel=0.01)
    assert acme[3] == "100 (then degrade)"
    assert [number_in(one) for one in acme[5:8]] == [
        used["requests"], used["hits"], used["misses"],
    ]  # fmt: skip
    row = board.table("indexes")["films"]
    assert row[:4] == ["default", "FLAT", "COSINE", "8"]
    assert number_in(row[4]) == films["count"]
    assert number_in(row[9]) == 30
    shown = board.page.locator("#slow tbody td:last-child").all_inner_texts()
    assert len(shown) == 20
    assert set(shown) <= {as_map(entry[6])["request_id"].decode() for entry in slow}


def test_what_happens_is_seen_without_reloading(busy: RunningServer, board: Dashboard) -> None:
    before = board.number("queries")
    vectors = board.number("vectors")
    with administrator(busy) as wire:
        for _ in range(25):
            search(wire, "films", *ROWS[7].tolist())
        add(wire, "films", "late", *ROWS[8].tolist())
    board.until(lambda: board.number("queries") == before + 25)
    board.until(lambda: board.number("vectors") == vectors + 1)
    with administrator(busy) as wire:
        wire.execute_command("VECTOR.DEL", "films", "late")
    # Each chart has been drawn, and says in words what it shows.
    figures = board.page.locator("figure")
    assert figures.count() == 4
    board.until(lambda: board.page.locator("figure canvas").count() == 4)
    drawn = board.page.evaluate(
        "[...document.querySelectorAll('figure canvas')].map((one) => one.getContext('2d')"
        ".getImageData(0, 0, one.width, one.height).data.some((value) => value))"
    )
    assert drawn == [True] * 4
    assert "queries" in figures.first.inner_text()


def test_the_heat_map_shows_each_cluster_with_the_lifetime_in_force(
    busy: RunningServer, board: Dashboard
) -> None:
    with administrator(busy) as wire:
        told = [as_map(one) for one in wire.execute_command("VECTOR.CLUSTER", "LIST", "films")]
    cells = board.page.locator("#heat button")
    expect(cells).to_have_count(len(told))
    hottest = max(told, key=lambda one: one["writes"])
    label = cells.nth(hottest["id"]).get_attribute("aria-label")
    assert label is not None
    assert f"{hottest['writes']} writes" in label
    assert cells.nth(hottest["id"]).inner_text() == f"{float(hottest['ttl']) / 60:.3g} min"
    coldest = min(told, key=lambda one: one["writes"])
    shades = [cells.nth(one["id"]).get_attribute("class") for one in (hottest, coldest)]
    assert shades[0] != shades[1]
    board.page.get_by_label("Index").first.select_option("acme/mine")
    expect(cells).to_have_count(1)
    expect(board.page.locator("#clusters-told")).to_contain_text("acme / mine: 1 clusters")


# -- search -------------------------------------------------------------------------------------


def ask(board: Dashboard, query: str, by: str = "id", **options: str) -> None:
    form = board.page.locator("#search-form")
    form.get_by_label("Index").select_option(label="default / films")
    form.get_by_label("By").select_option(by)
    form.get_by_label("Query").fill(query)
    for label, value in options.items():
        form.get_by_label(label).fill(value)
    form.get_by_role("button", name="Search").click()


def test_the_search_box_shows_hits_and_how_they_were_answered(
    busy: RunningServer, board: Dashboard
) -> None:
    vector = ", ".join(str(one) for one in ROWS[500].tolist())
    for query, by in (("v500", "id"), (vector, "vector"), (f"[{vector}]", "vector")):
        ask(board, query, by, Count="5")
        board.until(lambda: "5 hits" in board.page.locator("#search-told").inner_text())
        with administrator(busy) as wire:
            flat = search(wire, "films", *ROWS[500].tolist(), options=("COUNT", 5, "WITHSCORES"))
        rows = board.page.locator("#hits tbody tr").all()
        shown = [row.locator("td").all_inner_texts() for row in rows]
        assert [one[0] for one in shown] == [id_.decode() for id_ in flat[::2]]
        assert [float(one[1]) for one in shown] == pytest.approx(
            [float(score) for score in flat[1::2]], abs=1e-5
        )
        told = board.facts("#info")
        assert told["cache"] in {"miss", "exact"}
        assert told["metric"] == "COSINE"
        assert {"certified_recall", "cost", "latency_us.total", "request_id"} <= told.keys()


def test_what_a_search_is_refused_for_is_said(board: Dashboard) -> None:
    told = board.page.locator("#search-told")
    ask(board, "v1", Filter="]]")
    expect(told).to_contain_text("ERR:")
    ask(board, "1, 2", "vector", Filter="")
    expect(told).to_contain_text("DIM:")
    ask(board, "one, two", "vector")
    expect(told).to_have_text("A vector is numbers with blanks or commas between them.")
    expect(board.page.locator("#found")).to_be_hidden()


def test_nothing_that_the_server_tells_becomes_markup(board: Dashboard) -> None:
    ask(board, "v1", Count="1000")
    expect(board.page.locator("#hits")).to_contain_text(HOSTILE)
    cells = board.page.locator("#hits td").all_inner_texts()
    assert HOSTILE in cells
    assert json.dumps({"title": HOSTILE}, separators=(",", ":")) in cells
    ask(board, HOSTILE)
    expect(board.page.locator("#search-told")).to_contain_text("1")
    ask(board, HOSTILE + "?")
    expect(board.page.locator("#search-told")).to_contain_text("ERR:")
    board.until(lambda: "onerror" in board.page.locator("#slow").inner_text())
    page = board.page
    assert page.locator("main img, main script, header img").count() == 0
    assert page.evaluate("typeof hacked") == "undefined"
    # Even a page that meant to could not.
    refused = page.evaluate(
        "(text) => { try { document.body.innerHTML = text; return ''; }"
        " catch (error) { return error.name; } }",
        HOSTILE,
    )
    assert refused == "TypeError"
    assert page.evaluate("typeof hacked") == "undefined"
    assert len(board.mistakes) == 1
    assert "TrustedHTML" in board.mistakes.pop()


# -- who looks ----------------------------------------------------------------------------------


def test_a_tenant_sees_its_own_and_nothing_else(visit: Visit) -> None:
    board = visit().sign_in("acme", KEY).wait_until_live()
    expect(board.page.locator("#whose")).to_have_text("Tenant acme")
    assert board.table("indexes").keys() == {"mine"}
    assert board.table("tenants").keys() == {"acme"}
    text = board.page.locator("body").inner_text()
    assert "films" not in text
    assert "globex" not in text
    assert not board.page.locator("[data-figure=clients]").is_visible()
    assert board.facts("#llm").keys() == {
        "tokens in, this month", "tokens out", "cost, in units",
    }  # fmt: skip
    form = board.page.locator("#search-form")
    form.get_by_label("Query").fill("x")
    form.get_by_role("button", name="Search").click()
    expect(board.page.locator("#search-told")).to_contain_text("1 hits")


def test_a_key_is_kept_in_the_tab_until_one_signs_out(visit: Visit) -> None:
    board = visit()
    refusal = board.page.get_by_role("alert")
    expect(board.page.locator("#status")).to_have_text("Not signed in")
    expect(refusal).to_be_empty()
    board.sign_in("admin", "wrong")
    expect(refusal).to_contain_text("invalid username-password pair")
    assert board.page.evaluate("sessionStorage.length") == 0
    board.sign_in("admin", PASSWORD).wait_until_live()
    board.page.reload()
    board.wait_until_live()
    assert board.page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
    board.page.get_by_role("button", name="Sign out").click()
    expect(board.page.locator("#board")).to_be_hidden()
    assert board.page.evaluate("sessionStorage.length") == 0
    board.page.reload()
    expect(board.page.locator("#status")).to_have_text("Not signed in")


def test_whose_key_is_taken_away_is_asked_for_another(busy: RunningServer, visit: Visit) -> None:
    with administrator(busy) as wire:
        tenant(wire, "USER", "ADD", "globex", "eve", "KEY", KEY, "ROLE", "reader")
        board = visit().sign_in("globex.eve", KEY).wait_until_live()
        tenant(wire, "USER", "DEL", "globex", "eve")
    expect(board.page.locator("#sign-in")).to_be_visible()
    expect(board.page.locator("#board")).to_be_hidden()
    expect(board.page.get_by_role("alert")).to_contain_text("invalid username-password pair")
    assert board.page.evaluate("sessionStorage.length") == 0


# -- where it is looked at ----------------------------------------------------------------------


def test_it_can_be_used_with_the_keyboard_alone(visit: Visit) -> None:
    board = visit()
    page = board.page
    expect(page.get_by_label("Login")).to_be_focused()
    page.keyboard.type("admin")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    board.wait_until_live()
    # From the top: a link past everything, then the theme.
    page.evaluate("document.activeElement.blur()")
    page.reload()
    board.wait_until_live()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    expect(page.locator("#theme")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#theme")).to_have_text("Theme: light")
    # The clusters are one stop; arrows move within.
    cells = page.locator("#heat button")
    cells.first.focus()
    for key, number in (("ArrowRight", 1), ("End", 29), ("ArrowLeft", 28), ("Home", 0)):
        page.keyboard.press(key)
        expect(cells.nth(number)).to_be_focused()
        expect(page.locator("#cluster")).to_contain_text(f"Cluster {number};")
    page.keyboard.press("ArrowDown")
    columns = int(page.evaluate("document.activeElement.ariaLabel.match(/\\d+/)[0]"))
    assert columns > 1
    assert page.locator("#heat button[tabindex='0']").count() == 1
    page.wait_for_timeout(1100)  # the next figures take the focus away from nothing
    expect(cells.nth(columns)).to_be_focused()
    page.keyboard.press("Tab")
    expect(cells.nth(columns)).not_to_be_focused()
    assert page.evaluate("document.activeElement.closest('#heat')") is None
    page.locator("#search-form [name=query]").focus()
    page.keyboard.type("v3")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#search-told")).to_contain_text("hits")


def test_it_fits_into_360_pixels(visit: Visit) -> None:
    board = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    width = "document.documentElement.scrollWidth"
    expect(board.page.locator("#sign-in")).to_be_visible()
    assert board.page.evaluate(width) == 360
    board.sign_in("admin", PASSWORD).wait_until_live()
    ask(board, "v1", Count="20")
    expect(board.page.locator("#hits")).to_contain_text("onerror")
    assert board.page.evaluate(width) == 360
    # What is wider scrolls by itself, and nothing is cut off.
    cut_off = board.page.evaluate(
        "[...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll')"
        " && one.getBoundingClientRect().right > 361).map((one) => one.outerHTML.slice(0, 80))"
    )
    assert cut_off == []
    board.screenshot("dashboard-360px")


def ground(board: Dashboard) -> int:
    """How light the page is, 0 to 255."""
    colour = board.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(number_in(colour.partition("(")[2]))


def test_light_and_dark_follow_the_system_until_one_chooses(visit: Visit) -> None:
    board = visit(color_scheme="dark").sign_in("admin", PASSWORD).wait_until_live()
    theme = board.page.locator("#theme")
    assert ground(board) < 50
    expect(theme).to_have_text("Theme: auto")
    board.page.emulate_media(color_scheme="light")
    assert ground(board) > 200
    for name in ("light", "dark"):
        theme.click()
        expect(theme).to_have_text(f"Theme: {name}")
    assert ground(board) < 50
    board.page.reload()
    board.wait_until_live()
    expect(theme).to_have_text("Theme: dark")
    assert ground(board) < 50
    board.screenshot("dashboard-dark")
    theme.click()
    assert ground(board) > 200
    board.page.wait_for_timeout(1100)
    board.screenshot("dashboard-light")


# -- when the server goes away ------------------------------------------------------------------


def test_it_comes_back_by_itself_when_the_server_has_been_restarted(
    browser: Browser, tmp_path: Path
) -> None:
    ports = {"port": free_port()}
    http_port = free_port()
    with control_server(tmp_path / "data", **ports | {"http_port": http_port}) as server:
        board = Dashboard(browser, server).open().wait_until_live()
        with server.client() as wire:
            wire.execute_command("VECTOR.CREATE", "kept", "DIM", 2)
            add(wire, "kept", "a", 1, 0)
            search(wire, "kept", 1, 0)
        board.until(lambda: board.number("queries") == 1)
    status = board.page.locator("#status")
    expect(status).to_contain_text("Reconnecting")
    expect(status).to_contain_text("Figures are of")
    assert board.number("queries") == 1
    with control_server(tmp_path / "data", **ports | {"http_port": http_port}):
        board.wait_until_live()
        board.until(lambda: board.number("queries") == 0)
        assert board.table("indexes").keys() == {"kept"}
        assert board.mistakes == []
        board.close()
