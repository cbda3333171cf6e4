"""The operator's page in a real browser: by keyboard alone, without script, and to axe's satisfaction."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from palette.certificates import read_certificate
from palette.gateway.server import address_of, listening, server_of
from palette.gateway.store import Store
from tests.certificates.conftest import certify, crowd, failing, good, office, parts, report, run, sections
from tests.gateway.desks import FLOOR, Office, made
from tests.gateway.signers import Signers

axe = pytest.importorskip("axe_playwright_python.sync_playwright")
playwright = pytest.importorskip("playwright.sync_api")

__all__ = ["certify", "crowd", "failing", "good", "office", "parts", "report", "run", "sections"]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
VIEWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 375, "height": 812}, "color_scheme": "light"},
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium is installed"),
]


@pytest.fixture
def desk(store: Store, signers: Signers, run: Path, certify: Any, office: Any) -> Iterator[Office]:
    """An office whose gateway runs on a socket."""
    certify(run)
    made_of = made(store, read_certificate(run, office.ring), signers.grant("hospital", "medical"))
    with listening("127.0.0.1", 0) as listener:
        made_of.origin = address_of(listener)
        with made_of.gateway() as gateway:
            server = server_of(gateway)

            async def serve() -> None:
                await gateway.admission.open()
                await server.serve([listener])
                await gateway.admission.close()

            thread = Thread(target=lambda: asyncio.run(serve()))
            thread.start()
            yield made_of
            server.should_exit = True
            thread.join(20)


def require_accessible(page: Any, where: str) -> None:
    found = axe.Axe().run(page).response["violations"]
    assert not [(each["id"], each["nodes"][0]["html"]) for each in found], where
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, where


def require_strict(page: Any, origin: str) -> None:
    """The page's own style is let in by its policy, and nothing that is written into it."""
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text))
    page.goto(f"{origin}/admin")
    assert page.evaluate("getComputedStyle(document.body).marginTop") == "0px"
    refused.clear()
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.run = 1'}))"
    )
    assert page.evaluate("window.run") is None
    assert any("Content Security Policy" in each for each in refused)


def walk(page: Any, desk: Office, key: str, where: str) -> None:
    """Enters, asks and leaves by keyboard alone, looking at each page."""
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text) if "Security Policy" in said.text else None)
    page.goto(f"{desk.origin}/admin")
    require_accessible(page, f"{where}: the way in")
    page.keyboard.press("Tab")
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#tenants")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for details in page.query_selector_all("summary"):
        details.press("Enter")
    require_accessible(page, f"{where}: the page")
    shot(page, where)
    page.focus("#prompt")
    page.keyboard.type("how much ?")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=status]")
    assert "two grains" in page.inner_text("[role=status]")
    require_accessible(page, f"{where}: both replies")
    shot(page, f"{where}-asked")
    page.fill("#prompt", FLOOR)
    page.click("text=Ask both")
    assert "withheld" in page.inner_text("[role=alert]")
    require_accessible(page, f"{where}: withheld")
    page.click("text=Leave")
    page.wait_for_selector("#key")
    assert not refused


def shot(page: Any, name: str) -> None:
    """Keeps a picture for whoever wants to look, in ``PALETTE_SCREENS``."""
    if folder := os.environ.get("PALETTE_SCREENS"):
        page.screenshot(path=f"{folder}/admin-{name}.png", full_page=True)


def test_the_page_is_used_by_keyboard_without_script_and_axe_finds_nothing(desk):
    key = desk.key()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, options in VIEWS.items():
            # axe is a script of the test's own, which the page's policy would not let in.
            context = browser.new_context(**options, bypass_csp=True)
            walk(context.new_page(), desk, key, name)
            context.close()
        plain = browser.new_context(java_script_enabled=False).new_page()
        plain.goto(f"{desk.origin}/admin")
        plain.fill("#key", key)
        plain.click("button")
        assert plain.is_visible("#certificates")
        require_strict(browser.new_page(), desk.origin)
        browser.close()
