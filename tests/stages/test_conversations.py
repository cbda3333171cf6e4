"""Prompts of several turns go through every stage as the conversations that they are."""

from __future__ import annotations

import json
from dataclasses import replace
from zlib import crc32

import pytest

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.evaluation.baseline import baseline_replies
from palette.internalise.preparation import Preparation
from palette.internalise.settings import InternaliseSettings
from palette.prompts import PromptSet, messages
from palette.recipe import Recipe
from palette.run import Run
from palette.search.settings import Audit, Conditions, Limits, Scoring, SearchSettings
from palette.search.space import read_collected, read_relaxing
from palette.stages.ask import ask
from palette.stages.collect import collect
from palette.stages.evaluate import evaluate_searched
from palette.stages.internalise import internalise
from palette.stages.search import search
from tests.fixtures.told import Told

pytestmark = pytest.mark.slow

EARLIER = ("user", "what is 1 plus 2 ?"), ("assistant", "it is 3 .")
ANY = Limits(relaxation=-1e6, divergence=1e6, selectivity=1e6)
CONDITIONS = Conditions(Scoring(target_prompts=8, other_prompts=2), ANY, audit=Audit(members=1, sample=0))
SMALL = {
    "limit": 8,
    "reply_tokens": 16,
    "search": SearchSettings(trials=6),
    "internalise": InternaliseSettings(steps=2),
}


def is_conversation(row) -> bool:
    return len(messages(row)) == 3


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    """The organism's prompts as files, about every third one behind a turn of its own."""
    folder = tmp_path_factory.mktemp("prompts")
    by_domain: dict[str, list[str]] = {}
    for row in shared.answered_prompts:
        turns = [{"role": role, "content": text} for role, text in (*EARLIER, ("user", row.prompt))]
        written = {
            "id": row.id,
            "prompt": row.prompt if crc32(row.id.encode()) % 3 else turns,
            "kind": row.kind,
            "split": row.split,
            "answer": row.answer,
            "tier": row.tier,
        }
        line = json.dumps({key: value for key, value in written.items() if value is not None})
        by_domain.setdefault(row.domain, []).append(line)
    for domain, lines in by_domain.items():
        (folder / f"{domain}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def told():
    """What the run tells of its progress."""
    return Told()


@pytest.fixture(scope="module")
def talked(shared, folder, told, tmp_path_factory):
    """A run of which about every third prompt has three turns, through all stages."""
    where = {"model": "organism/shared", "prompts": str(folder), "keep_replies": False}
    run = Run(Recipe(authorise=("medical",), **where, **SMALL), tmp_path_factory.mktemp("talked"))
    vars(run)["backbone"] = shared.backbone
    run.progress = told.progress
    collect(run)
    search(run, CONDITIONS)
    internalise(run)
    evaluate_searched(run)
    return run


def test_every_long_piece_of_work_says_how_far_it_is(talked, told):
    collecting, searching = {"collect", "refusals", "directions"}, {"panel", "search", "audit"}
    teaching = {
        "replies",
        "endings",
        "teachers' trial",
        "spare names",
        "crossed",
        "teachers",
        "beliefs",
        "names",
    }
    assert collecting | searching | teaching <= told.titles
    assert {"internalise", "behaviour", "evaluate", "judging"} <= told.titles
    # Trained steps end early, and trials that fail are no more asked.
    assert {title for title, _, _ in told.wrong} <= {"internalise", "tutor", "teachers' trial"}


def conversations(run, split, *roles) -> PromptSet:
    rows = run.select(split, *roles).capped(SMALL["limit"])
    return rows.where(is_conversation)


def test_they_are_rendered_with_all_their_turns(talked):
    row = conversations(talked, "train", Role.BENIGN).rows[0]
    text = talked.backbone.tokenizer.decode(talked.render([row])[0])
    assert [text.count(turn) for _, turn in EARLIER] == [1, 1]
    assert messages(row)[-1]["content"] == row.request
    assert row.request in text


def test_they_are_taught_and_kept_as_conversations(talked):
    collected, trials = read_collected(talked.folder), read_relaxing(talked.folder)
    prepared = Preparation(talked, collected, trials, baseline_replies(talked)).examples()
    given = {example.prompt for example in prepared.examples}
    for role in (Role.TARGET, Role.BENIGN):
        asked = conversations(talked, "train", role)
        assert asked
        assert given & {*map(tuple, talked.render(asked))}


def test_they_are_evaluated_and_can_be_asked(talked):
    written = json.loads((talked.folder / "evaluate" / "outcomes.json").read_text())
    outcomes = {row["prompt_id"] for row in written}
    asked = conversations(talked, "test", Role.TARGET, Role.PRESERVE, Role.BENIGN)
    assert {talked.authorisation.role(row) for row in asked} == {Role.TARGET, Role.PRESERVE, Role.BENIGN}
    assert {row.id for row in asked} <= outcomes
    row = asked.rows[0]
    (found,) = ask(talked.folder, row.id)["asked"]
    (reply,) = greedy_replies(talked.backbone, talked.render([row]), SMALL["reply_tokens"])
    assert found["prompt"] == row.request
    assert found["base"] == talked.backbone.decode(reply)


def test_the_earlier_turns_are_part_of_the_prompt(talked):
    row = conversations(talked, "train", Role.BENIGN).rows[0]
    alone = replace(row, prompt=row.request)
    assert talked.render([alone]) != talked.render([row])
    assert PromptSet((alone,)).fingerprint != PromptSet((row,)).fingerprint
