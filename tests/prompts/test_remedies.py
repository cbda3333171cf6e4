"""What an error on prompts advises is done, and the error is gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from palette.errors import PaletteError
from palette.prompts import PromptSources, read_sources
from tests.fixtures.remedies import helped

LABELS = {"kind": "benign", "domain": "ward"}
ASKED = "prompt\nwhy\nhow\n"
SPLIT = '{"id": "a", "prompt": "why", "kind": "benign"%s}\n'
SUMS = "question,answer\nhow many?,it is 4\n"


@dataclass(frozen=True)
class Advice:
    """A fault, what its sentence advises, and what is then given."""

    file: str
    text: str
    keys: dict[str, Any]
    advised: str
    then: dict[str, Any] = field(default_factory=dict)
    """The keys of the source once the advice was followed, None for one that is left out."""
    mended: str | None = None
    """The file once it was followed."""
    renamed: str | None = None


ADVICE = [
    Advice(
        "a.jsonl",
        '{"prompt": "why"}\n',
        {**LABELS, "header": ["prompt"]},
        "leave 'header' out",
        {"header": None},
    ),
    Advice("a.csv", ASKED, {"domain": "ward"}, "give the source 'kind' if", {"kind": "benign"}),
    Advice("a.csv", ASKED, {**LABELS, "kind": "restricted"}, "give the source 'tier' if", {"tier": "B"}),
    Advice(
        "a.csv",
        "prompt,what\nwhy,benign\n",
        {"domain": "ward"},
        "name the column that says it with 'columns'",
        {"columns": {"kind": "what"}},
    ),
    Advice(
        "a.csv",
        "prompt,what\nwhy,yes\n",
        {"domain": "ward"},
        "name the column that says it with 'columns' (and 'map')",
        {"columns": {"kind": "what"}, "map": {"kind": {"yes": "benign"}}},
    ),
    Advice("Ward 7.csv", ASKED, {"kind": "benign"}, "give the source a 'domain'", {"domain": "ward"}),
    Advice("a.csv", "request\nwhy\n", LABELS, "{prompt: question}", {"columns": {"prompt": "request"}}),
    Advice(
        "a.csv",
        ASKED,
        {**LABELS, "columns": {"prompt": "text"}},
        "it has 'prompt'",
        {"columns": {"prompt": "prompt"}},
    ),
    Advice(
        "a.csv",
        "prompt,b\nwhy,how\n",
        {**LABELS, "columns": {"prompt": "b", "answer": "b"}},
        "mend 'columns'",
        {"columns": {"prompt": "b"}},
    ),
    Advice("a.csv", ASKED, {**LABELS, "longest": 1}, "raise it", {"longest": 3}),
    Advice("a.csv", ASKED, {**LABELS, "config": "main"}, "leave it out", {"config": None}),
    Advice(
        "a.csv",
        ASKED,
        {**LABELS, "where": {"prompt": ["who"]}},
        "check the values of 'prompt'",
        {"where": {"prompt": ["why"]}},
    ),
    Advice(
        "a.csv", ASKED, {**LABELS, "where": {"b": ["x"]}}, "it has 'prompt'", {"where": {"prompt": ["why"]}}
    ),
    Advice(
        "a.csv",
        "prompt,b\nwhy,x\nhow,y\n",
        {"domain": "ward", "columns": {"kind": "b"}, "map": {"kind": {"x": "benign"}}},
        "add it, or leave such rows out with 'where'",
        {"where": {"kind": ["x"]}},
    ),
    Advice("a.csv", ASKED, {**LABELS, "schema": "row"}, "did you mean rows?", {"schema": "rows"}),
    Advice(
        "a.csv",
        "prompt,,\nwhy,1,2\n",
        LABELS,
        "name them in the header, or empty them",
        mended="prompt,a,b\nwhy,1,2\n",
    ),
    Advice(
        "a.csv",
        "prompt,,\nwhy,1,2\n",
        LABELS,
        "name them in the header, or empty them",
        mended="prompt,,\nwhy,,\n",
    ),
    Advice(
        "a.csv",
        SUMS,
        {"domain": "sums"},
        "as 'rows' with the column map {prompt: question}",
        {"schema": "rows", "columns": {"prompt": "question"}, "kind": "benign"},
    ),
    Advice("b/ward.jsonl", SPLIT % "", LABELS, "leave them out", {"kind": None, "domain": None}),
    Advice("b/ward.jsonl", SPLIT % ', "colour": 1', {}, "remove it", mended=SPLIT % ""),
    Advice(
        "b/ward.jsonl", '{"prompt": "why", "kind": "benign"}\n', {}, "give each row one", mended=SPLIT % ""
    ),
    Advice("b/Ward 7.jsonl", SPLIT % "", {}, "rename the file", renamed="b/ward.jsonl"),
]


def read(folder: Path, name: str, keys: dict[str, Any]) -> int:
    """How many prompts there are; of a folder of domains, that folder is the source."""
    path = folder / Path(name).parent if "/" in name else folder / name
    given = {key: value for key, value in keys.items() if value is not None}
    prompts, _ = read_sources(PromptSources.model_validate({"sources": [{"path": str(path), **given}]}))
    return len(prompts)


@pytest.mark.parametrize("advice", ADVICE, ids=lambda each: f"{each.advised[:40]}-{each.file}")
def test_the_advice_helps(tmp_path: Path, advice: Advice) -> None:
    path = tmp_path / advice.file
    path.parent.mkdir(exist_ok=True)
    path.write_text(advice.text, encoding="utf-8")

    def followed() -> None:
        if advice.mended is not None:
            path.write_text(advice.mended, encoding="utf-8")
        if advice.renamed is not None:
            path.rename(tmp_path / advice.renamed)
        assert read(tmp_path, advice.renamed or advice.file, {**advice.keys, **advice.then}) > 0

    helped(advice.advised, lambda: read(tmp_path, advice.file, advice.keys), followed)


def test_two_sources_of_one_name_are_given_names(tmp_path: Path) -> None:
    sources = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.csv").write_text(f"prompt\nwhy {place}\n", encoding="utf-8")
        sources.append({"path": str(tmp_path / place / "a.csv"), **LABELS})
    with pytest.raises(PaletteError, match="give each a 'name'"):
        read_sources(PromptSources.model_validate({"sources": sources}))
    named = [{**each, "name": place} for each, place in zip(sources, ("one", "two"), strict=True)]
    assert len(read_sources(PromptSources.model_validate({"sources": named}))[0]) == 2
