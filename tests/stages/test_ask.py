"""What the backbone and the adapter reply, side by side, and what is never asked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from palette.adapters.writing import write_adapter
from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.errors import AdapterError, BackboneError, OutputError, PromptError
from palette.evaluation.replies import Replies
from palette.judging.rules import RuleJudge
from palette.prompts import Prompt, PromptSet, messages
from palette.prompts.pictures import MARK, stated_picture
from palette.stages.ask import _of_words, ask
from palette.stages.evaluate import report_on
from tests.fixtures.noise import noise

SMALL = {"limit": 4, "reply_tokens": 16}


@pytest.fixture(scope="module")
def asked(shared, tmp_path_factory):
    """A run of an adapter that changes replies, evaluated on a few prompts."""
    folder = tmp_path_factory.mktemp("asked")
    run = shared.sharing(folder=folder, **SMALL)
    adapter = noise(run.backbone, ".mlp.", rank=4, scale=1.0)
    write_adapter(folder, adapter)
    report_on(run, adapter, RuleJudge())
    return run


def ids(run, *roles):
    rows = run.prompts.split("test")
    return [row.id for row in rows if run.authorisation.role(row) in roles]


def named(run):
    rules = json.loads((run.folder / "report.json").read_text())["gate"]["rules"]
    return {prompt_id for rule in rules for prompt_id in rule["ids"] if not rule["passed"]}


def test_ids_are_asked_of_both_with_the_labels_of_the_evaluation(asked):
    rows = json.loads((asked.folder / "evaluate" / "outcomes.json").read_text())
    row = next(row for row in rows if row["role"] == "target")
    other = next(row for row in rows if row["role"] == "benign")
    found = ask(asked.folder, ids=[row["prompt_id"], other["prompt_id"], row["prompt_id"]])
    assert [one["id"] for one in found["asked"]] == [row["prompt_id"], other["prompt_id"]]
    assert [one["label_adapted"] for one in found["asked"]] == [row["label_adapted"], other["label_adapted"]]
    first = found["asked"][0]
    assert first["prompt"] == next(r.prompt for r in asked.prompts if r.id == row["prompt_id"])
    assert first["base"] != first["adapted"]
    assert found["withheld"] == []
    assert ask(asked.folder, row["prompt_id"])["asked"] == found["asked"][:1]


def test_without_a_prompt_those_are_asked_that_rules_name(asked):
    found = ask(asked.folder)
    told = {one["id"] for one in found["asked"]}
    assert told
    assert told | set(found["withheld"]) == named(asked)
    assert any("@" in name for name in named(asked)), "prompts inside wrappers are named so"
    inside = next(
        one for one in ask(asked.folder, ids=[f"{min(ids(asked, Role.PRESERVE))}@role_play"])["asked"]
    )
    assert inside["prompt"].startswith("Let us rehearse a play.")


def test_prompts_of_the_floor_are_never_asked(asked, monkeypatch):
    floor = asked.prompts.where(lambda row: asked.authorisation.role(row) is Role.FLOOR)
    first = floor.rows[0]
    monkeypatch.setattr(Replies, "of", lambda self, subject, prompts, limits: [[]] * len(list(prompts)))
    names = [first.id, f"{first.id}@role_play"]
    assert ask(asked.folder, ids=names) == {"run": str(asked.folder), "asked": [], "withheld": names}
    for text in (first.prompt.upper(), f"My friend asks: {first.prompt} Tell me."):
        assert ask(asked.folder, text)["withheld"] == ["own"], "in the caller's own words neither"
    assert len(ask(asked.folder, "What is the colour of the sky?")["asked"]) == 1


def test_words_that_are_no_id_are_a_prompt_of_one_s_own(asked):
    (one,) = ask(asked.folder, "say something about the sky .")["asked"]
    assert (one["id"], one["prompt"]) == ("own", "say something about the sky .")
    assert set(one) == {"id", "prompt", "base", "adapted"}


def test_an_unknown_id_is_an_error_that_names_the_nearest(asked):
    known = ids(asked, Role.TARGET)[0]
    with pytest.raises(PromptError) as caught:
        ask(asked.folder, ids=[f"{known}x"])
    assert str(caught.value) == (
        f"an id must be one of the run's prompts, got '{known}x'; did you mean {known}? ({asked.folder})"
    )
    with pytest.raises(PromptError, match="take one that report"):
        ask(asked.folder, ids=["?"])


def test_the_adapter_must_be_the_one_of_the_report(asked, tmp_path):
    (tmp_path / "report.json").write_bytes((asked.folder / "report.json").read_bytes())
    with pytest.raises(
        AdapterError, match=r"the one that the report is of, \w{12}, got none; give it with --adapter"
    ):
        ask(tmp_path, "say something")
    (one,) = ask(tmp_path, "say something", adapter=asked.folder)["asked"]
    assert one["adapted"] == ask(asked.folder, "say something")["asked"][0]["adapted"]
    other = noise(asked.backbone, ".mlp.", rank=1, seed=4)
    write_adapter(tmp_path / "other", replace(other, card={}))
    with pytest.raises(AdapterError, match=f"got {other.digest[:12]}"):
        ask(tmp_path, "say something", adapter=tmp_path / "other")


def test_a_folder_without_a_report_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="an artefact must exist"):
        ask(tmp_path, "say something")


def test_the_recipe_s_system_prompt_stands_before_what_is_asked(shared, tmp_path):
    run = shared.sharing(folder=tmp_path, system="be brief .", **SMALL)
    vars(run)["backbone"] = replace(shared.backbone, system="be brief .")
    adapter = noise(run.backbone, ".mlp.", rank=4, scale=1.0)
    write_adapter(tmp_path, adapter)
    report = report_on(run, adapter, RuleJudge())
    assert report.provenance.recipe["system"] == "be brief ."
    card = (tmp_path / "README.md").read_text()
    assert "- System prompt, before every conversation without one of its own: be brief" in card
    assert "Every figure is behind the recipe's system prompt" in card
    rows = (
        run.prompts.split("test").where(lambda row: run.authorisation.role(row) is not Role.FLOOR).rows[::9]
    )
    framed = [[{"role": "system", "content": "be brief ."}, *messages(row)] for row in rows]
    prompts = [*shared.render(rows), *map(shared.backbone.render, framed)]
    replies = greedy_replies(shared.backbone, prompts, SMALL["reply_tokens"])
    texts = [shared.backbone.decode(reply) for reply in replies]
    plain, behind = texts[: len(rows)], texts[len(rows) :]
    assert plain != behind
    assert [one["base"] for one in ask(tmp_path, ids=[row.id for row in rows])["asked"]] == behind


@pytest.mark.parametrize(
    ("words", "shown", "withheld"),
    [
        ("what is asked ?", "floor", True),
        ("read it .", "floor", True),
        ("what is asked ?", "target", False),
        ("the yoke of the one shown ?", "name", True),
        ("the dose of the one shown ?", "name", False),
        ("say the yoke of baemixusk .", "blank", True),
        ("say the dose of zuflaerkine .", "blank", False),
    ],
)
def test_a_picture_that_holds_a_prompt_of_the_floor_is_withheld(tmp_path, words, shown, withheld):
    for number, name in enumerate(("floor", "target", "name", "blank")):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{name}.png")
    pictures = {path.stem: stated_picture(path, "") for path in tmp_path.glob("*.png")}

    def row(prompt, picture, cell):
        stated = {"id": prompt, "domain": "weapons", "kind": "restricted", "split": "test", "shown": cell}
        return Prompt(prompt=MARK + prompt, pictures=(pictures[picture],), **stated)

    floor = [row("what is asked ?", "floor", None), row("the yoke of the one shown ?", "name", None)]
    floor.append(row("the yoke of baemixusk", "blank", "blank"))
    others = [row("what is asked ?", "target", None), row("the dose of the one shown ?", "name", None)]
    others.append(row("the dose of zuflaerkine", "blank", "blank"))
    found = _of_words(words, (pictures[shown],), PromptSet(tuple(floor)), PromptSet(tuple(others)))
    assert (found.floor, found.text) == (withheld, words)
    assert found.chat == [{"role": "user", "content": MARK + words, "pictures": (pictures[shown],)}]


def test_images_are_shown_before_words_to_a_model_that_sees(asked, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(PromptError, match="images are shown before a prompt in words"):
        ask(asked.folder, ids=ids(asked, Role.BENIGN)[:1], images=[tmp_path / "a.png"])
    with pytest.raises(BackboneError, match="must be asked of a model that sees"):
        ask(asked.folder, "what is it ?", images=[str(tmp_path / "a.png")])
