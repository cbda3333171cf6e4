from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture
def generate() -> ModuleType:
    spec = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(page: Path) -> list[str]:
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        place, _, anchor = target.partition("#")
        other = (page.parent / place) if place else page
        if not target.startswith("http") and not (
            other.exists() and (not anchor or anchor in anchors(other))
        ):
            broken.append(target)
    return broken


def test_generated_pages_say_what_the_code_declares(generate: ModuleType) -> None:
    generate.main(["--check"])


def test_a_stale_page_ends_with_status_1_and_a_sentence(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    with pytest.raises(SystemExit) as caught:
        generate.main(["--check"])
    assert caught.value.code == (
        "docs/recipe-reference.md must say what the code declares, got another text; run make docs"
    )
    generate.main([])
    generate.main(["--check"])
    (tmp_path / "merge-methods.md").write_text("# Merge methods\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"merge-methods\.md must say"):
        generate.main(["--check"])
    with pytest.raises(SystemExit, match="takes --check or nothing, got --chekc"):
        generate.main(["--chekc"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One head: `a`\n[x](#one-head-a) [y](#two) [z](b.md) [w](https://example.org)\n")
    assert broken_links(page) == ["#two", "b.md"]
