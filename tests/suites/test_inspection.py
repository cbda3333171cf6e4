"""Suites in inspect-ai: its log holds the same scores, and no text."""

from __future__ import annotations

import json
import sys
import zipfile

import pytest

from palette.errors import PaletteError
from palette.suites.inspection import exchanged, export
from palette.suites.measures import measured
from palette.suites.run import require_extra

MEASURES = [
    {"kind": "refusal_relaxed", "prompts": "own"},
    {"kind": "refusal_kept", "prompts": "own"},
    {"kind": "over_refusal", "prompts": "own"},
    {"kind": "perplexity", "prompts": "own"},
]


@pytest.fixture
def run(measuring):
    return measuring(*MEASURES, reply_tokens=6)


@pytest.fixture
def found(run):
    return measured(run)


def test_hashes_stand_for_texts_unless_benign_ones_are_wanted(found):
    relaxed, _, benign, _ = found
    for one, texts in ((relaxed, True), (relaxed, False), (benign, False)):
        assert all(each.sample.startswith("sha256:") for each in exchanged(one, 0, texts).values())
        assert all(each.output.startswith("sha256:") for each in exchanged(one, 0, texts).values())
    assert exchanged(benign, 0, True)["benign-0"].sample == "benign 0 ?"


def test_without_the_extra_one_sentence_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(PaletteError) as caught:
        require_extra("inspect_ai")
    assert str(caught.value).endswith("got an environment without it; pip install palette-llm[inspect]")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # inspect-ai's libraries warn when their streams are collected
def test_inspects_log_has_the_scores_and_no_text(run, measuring, found, tmp_path):
    pytest.importorskip("inspect_ai")
    from inspect_ai.log import read_eval_log

    logs = export("board", run, found, tmp_path / "logs")
    assert {name: list(sides) for name, sides in logs.items()} == {
        one["kind"]: ["base", "adapted"] for one in MEASURES[:3]
    }
    for one in found[:3]:
        for place, (side, path) in enumerate(logs[one.kind].items()):
            log = read_eval_log(path)
            assert log.status == "success"
            assert log.eval.metadata["side"] == side
            [score] = log.results.scores
            assert score.metrics["mean"].value == pytest.approx(one.sides[place]["refusal"].rate)
            assert [sample.id for sample in log.samples] == [item.id for item in one.items]
            labels = [sample.scores["refusal"].answer for sample in log.samples]
            assert labels == [item.outcomes[place] for item in one.items]
            with zipfile.ZipFile(path) as archive:
                held = b"".join(archive.read(name) for name in archive.namelist()).decode()
            for text in (*one.exchanges.prompts, *(reply for reply in one.exchanges.replies[place] if reply)):
                assert json.dumps(text)[1:-1] not in held
    shown = export("board", measuring(MEASURES[2], adapted=False), [found[2]], tmp_path / "open", texts=True)
    assert read_eval_log(shown["over_refusal"]["base"]).samples[0].input == "benign 0 ?"
