"""The documents: generated pages, links, and that what they have a reader type can be typed."""

from __future__ import annotations

import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from palette.cli.app import app
from palette.merging.settings import MergeSettings
from palette.recipe import Recipe, TokenRecipe
from palette.settings import dotted

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")])
GUIDES = [page for page in PAGES if page.parent.name == "docs" or page.name == "README.md"]
"""Pages that say what is; others say what was, too."""
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


KEYS = {
    *(key for recipe in (Recipe, TokenRecipe) for key, _ in dotted(recipe)),
    *(f"merge.{key}" for key, _ in dotted(MergeSettings)),
}


def commands(page: Path) -> list[str]:
    """The commands of a page, without comments and without marks of what may be left out."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    said = [re.sub(r"^(\$ )?(\S*/)?", "", line) for line in lines] + [
        " ".join(each.split()) for each in inline
    ]
    return [re.sub(r"[\[\]…]", " ", each) for each in said if re.match(r"(palette|make) \S", each)]


def mistakes(command: str) -> list[str]:
    """Whatever of a command does not exist: its verb, an option, a key, or a target."""
    program, *words = shlex.split(command, comments=True)
    if program == "make":
        targets = set(
            re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        )
        return [word for word in words if "=" not in word and word not in targets]
    verb: Any = get_command(app)
    while isinstance(verb, TyperGroup) and words and words[0] in verb.commands:
        verb = verb.commands[words.pop(0)]
    if isinstance(verb, TyperGroup):
        return words
    options = {name for each in verb.params for name in (*each.opts, *each.secondary_opts)}
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in options]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_has_typed_exists(page: Path) -> None:
    assert [(each, wrong) for each in commands(page) if (wrong := mistakes(each))] == []


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_key_that_a_page_sets_exists(page: Path) -> None:
    named = re.findall(r"--set ([\w.]+)=", page.read_text(encoding="utf-8"))
    # Those of a suite's measures are by their number; KEY and key stand for any.
    assert [
        each for each in named if each not in KEYS and not re.match(r"measures\.\d|.*\bkey$", each, re.I)
    ] == []


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("palette tokens trian RECIPE", ["trian", "RECIPE"]),
        ("palette merge A B --wieghts 1,2 -o both", ["--wieghts"]),
        ("palette merge A --weights=1 # and so on --x", []),
        ("make domian DOMAIN=medical", ["domian"]),
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str, wrong: list[str]) -> None:
    assert mistakes(command) == wrong
