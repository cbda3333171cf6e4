"""Draws docs/screens/ and checks pages with axe: python docs/screens.py FAILED ONE OTHER [TOKENS].

Three runs, of which the gate of the first failed, and the folder of a run of control tokens. It needs a
Chromium (``CHROMIUM``, default /usr/bin/chromium) and ``pip install axe-playwright-python pillow``.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright

from palette.files import read_json, write_text
from palette.reporting.pages import render, render_tokens
from palette.reporting.report import read_report
from palette.stages.compare import compare
from palette.stages.summary import summary

SCREENS = Path(__file__).with_name("screens")
BROWSER = os.environ.get("CHROMIUM", "/usr/bin/chromium")
VIEWS = {
    "light": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"},
    "middle": {"viewport": {"width": 768, "height": 1024}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 375, "height": 812}, "color_scheme": "light"},
}
SIZES = {"failed": (1160, 1500), "summary": (820, 1090), "compare": (1160, 1210)}
"""What of each page is shown, in pixels."""
SCREENFULS = 4
"""At most, of a failed run."""
UNFOLD = "document.querySelectorAll('details').forEach(each => each.open = true)"


def pages(failed: Path, one: Path, other: Path, tokens: Path | None, folder: Path) -> dict[str, Path]:
    """The pages of the runs by name, written to a folder."""
    write_text(folder / "failed.html", render(read_report(failed)))
    write_text(folder / "other.html", render(read_report(other)))
    if tokens is not None:
        write_text(folder / "tokens.html", render_tokens(read_json(tokens / "report.json")))
    compare(one, other, folder)
    for case in (False, True):
        summary(other, folder, safety_case=case)
    return {path.stem: path for path in sorted(folder.glob("*.html"))}


def faults(browser: Any, name: str, path: Path) -> list[str]:
    """What axe finds, and what does not fit, in every view, folded and unfolded."""
    found = []
    for view, options in VIEWS.items():
        page = browser.new_context(**options, bypass_csp=True).new_page()
        page.goto(path.resolve().as_uri())
        tall, width = page.evaluate("document.documentElement.scrollHeight"), options["viewport"]["width"]
        if name == "failed" and width > 1000 and tall > SCREENFULS * options["viewport"]["height"]:
            found.append(f"{name}, {view}: {tall} pixels high")
        for state in ("folded", "unfolded"):
            broken = [each["id"] for each in Axe().run(page).response["violations"]]
            if page.evaluate("document.documentElement.scrollWidth") > width:
                broken.append("too wide")
            found += [f"{name}, {view}, {state}: {each}" for each in broken]
            page.evaluate(UNFOLD)
        page.context.close()
    return found


def draw(browser: Any, name: str, path: Path) -> None:
    """Writes the first screen of a page as a small PNG."""
    width, height = SIZES[name]
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.goto(path.resolve().as_uri())
    shot = Image.open(io.BytesIO(page.screenshot()))
    SCREENS.mkdir(exist_ok=True)
    shot.convert("RGB").quantize(56).save(SCREENS / f"{name}.png", optimize=True)


def main(failed: Path, one: Path, other: Path, tokens: Path | None = None) -> None:
    """Draws the screens; ends with status 1 and what is wrong if a page has a fault."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        made = pages(failed, one, other, tokens, Path(folder))
        for name in SIZES:
            draw(browser, name, made[name])
        found = [fault for name, path in made.items() for fault in faults(browser, name, path)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
