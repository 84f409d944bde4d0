"""A real Chromium, and the dashboard in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from servers import RunningServer

CHROMIUM = shutil.which("chromium")
ARTEFACTS = Path(__file__).parent.parent / "artefacts"
"""Screenshots go here; git does not see them."""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: chromium)"
)

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Not for a whole session: while it is there, no other event loop runs in this thread."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Dashboard:
    """The page, in a tab of its own.

    Attributes:
        mistakes: what the page has complained of: errors of scripts, refusals of its policy.
    """

    def __init__(self, browser: Browser, server: RunningServer, **options: Any) -> None:
        self.server = server
        self.mistakes: list[str] = []
        self._context = browser.new_context(**options)
        self._context.set_default_timeout(15_000)
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: Any) -> None:
        # Chromium reports answers such as 401 by itself: those are not the page's mistakes.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.mistakes.append(message.text)

    def close(self) -> None:
        self._context.close()

    def open(self) -> Dashboard:
        self.page.goto(f"http://127.0.0.1:{self.server.settings.http_port}/")
        return self

    def sign_in(self, login: str, key: str) -> Dashboard:
        form = self.page.locator("#sign-in")
        form.get_by_label("Login").fill(login)
        form.get_by_label("Key").fill(key)
        form.get_by_role("button", name="Sign in").click()
        return self

    def wait_until_live(self) -> Dashboard:
        expect(self.page.get_by_role("status").first).to_have_text("Live", timeout=15_000)
        expect(self.page.locator("#board")).to_be_visible()
        return self

    def figure(self, name: str) -> str:
        return self.page.locator(f"[data-figure={name}]").inner_text()

    def number(self, name: str) -> float:
        """A figure as a number, without its unit."""
        return number_in(self.figure(name))

    def table(self, section: str) -> dict[str, list[str]]:
        """Cells of a table's rows, by the first of each."""
        rows = self.page.locator(f"#{section} tbody tr").all()
        found = [row.locator("th, td").all_inner_texts() for row in rows]
        return {first: rest for first, *rest in found}

    def facts(self, selector: str) -> dict[str, str]:
        """What terms stand for."""
        terms = self.page.locator(f"{selector} dt").all_inner_texts()
        return dict(zip(terms, self.page.locator(f"{selector} dd").all_inner_texts(), strict=True))

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what comes with the next seconds."""
        for _ in range(100):
            if holds():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError("it did not come about")

    def screenshot(self, name: str) -> None:
        """Of the whole page, for people to look at."""
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)


def number_in(text: str) -> float:
    """The number that a text begins with; -1 for a dash."""
    found = re.match(r"\s*([\d,.]+)", text)
    return float(found[1].replace(",", "")) if found else -1.0
