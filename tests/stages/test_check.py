"""What a run would stumble over is said before its model runs: all of it, and nothing that is not so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from palette import organism
from palette.authorisation import Role
from palette.backbones.loading import load_sketch
from palette.evaluation.gate import gate
from palette.evaluation.settings import EvaluateSettings, GateSettings
from palette.judging.judge import Label
from palette.prompts import PromptSet
from palette.recipe import Recipe
from palette.run import Run
from palette.stages.check import _ideal, check, lacking_evidence, lacking_refusals
from palette.stages.sketch import unreadable

SHARED = Recipe(model="organism/shared", authorise=("medical",))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(SHARED, tmp_path_factory.mktemp("check"))


@pytest.fixture(scope="module")
def sketch():
    return load_sketch(organism.weights("shared"))


def lacking(run, **settings):
    recipe = run.recipe.model_copy(update=settings)
    return lacking_evidence(run.answered_prompts, run.authorisation, recipe)


def asked(run, *chats):
    row = run.prompts.rows[0]
    rows = (replace(row, id=f"mine-{number}", prompt=chat) for number, chat in enumerate(chats))
    return PromptSet(tuple(rows))


def test_a_sound_recipe_has_nothing_in_its_way():
    found = check(SHARED)
    assert found["errors"] == []
    assert found["warnings"] == []
    assert found["prompts"]["medical"]["target"]["test"] == 200
    assert found["prompts"]["weapons"]["floor"]["test"] == 144
    assert 0.4 < found["memory_gib"] < 1 + SHARED.memory_gib
    assert list(found["stages_gib"]) == ["collect", "search", "internalise", "evaluate"]
    assert max(found["stages_gib"].values()) == found["memory_gib"]
    assert json.loads(json.dumps(found)) == found


def test_what_is_said_of_memory_is_what_the_recipe_allows_and_the_model_needs():
    little, much = (check(SHARED.model_copy(update={"memory_gib": gib}))["stages_gib"] for gib in (0.01, 8.0))
    assert little["internalise"] < much["internalise"]
    # The covariances of a model so narrow take hardly any, whatever is allowed.
    assert little["collect"] == much["collect"]


def test_all_that_is_wrong_is_said_at_once():
    found = check(SHARED.model_copy(update={"model": "/nowhere", "authorise": ("medicine",)}))
    assert len(found["errors"]) == 2
    assert "medicine" in " ".join(found["errors"])
    assert "/nowhere" in " ".join(found["errors"])
    assert found["model"] is None
    assert found["memory_gib"] is None


def test_a_helpful_checkpoint_that_is_not_there_is_said():
    found = check(SHARED.model_copy(update={"evaluate": EvaluateSettings(helpful="./nowhere")}))
    assert [each for each in found["errors"] if "got './nowhere'" in each] == found["errors"]
    assert len(found["errors"]) == 1
    known = SHARED.model_copy(update={"evaluate": EvaluateSettings(helpful="organism/helpful")})
    assert check(known)["errors"] == []


def test_a_sketch_has_no_numbers_and_renders_as_the_model_does(sketch, shared):
    assert all(weight.device.type == "meta" for weight in sketch.model.parameters())
    chat = [{"role": "user", "content": "what is this ?"}]
    assert sketch.render(chat) == shared.backbone.render(chat)
    assert sketch.stops == shared.backbone.stops
    assert sketch.model.dtype is torch.float32
    half = load_sketch(organism.weights("shared"), dtype="bfloat16")
    assert half.model.dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("limit", "rules"),
    [
        (1000, set()),
        # The floor has a domain of its own and part of six others; wrappers ask eight of each.
        (72, {"preserved_refusal", "floor_refusal"}),
        (
            15,
            {"target_refusal", "authorised_answered", "target_correct", "preserved_refusal", "floor_refusal"},
        ),
    ],
)
def test_what_the_gate_will_lack_is_what_the_gate_says_it_lacks(run, limit, rules):
    found = lacking(run, limit=limit)
    named = {sentence.split(": ")[1].split(" ")[0].split(".")[0] for sentence in found}
    assert rules <= named
    assert bool(found) == bool(rules)
    assert all("insufficient evidence" in sentence for sentence in found)


def test_wider_limits_of_the_gate_need_less(run):
    wide = EvaluateSettings(gate=GateSettings(preserve_margin=0.3, floor_margin=0.3))
    assert any("preserved_refusal" in sentence for sentence in lacking(run, limit=40))
    assert not any("preserved_refusal" in sentence for sentence in lacking(run, limit=40, evaluate=wide))


def met(run, shares):
    """Of 40 train prompts of each domain and kind so many are refused: all, where no share is said."""
    return {
        domain: {
            kind: {"read": 40, "refused": round(40 * shares.get((domain, kind), 1.0)), "answered": 0}
            for kind in ("restricted", "floor", "benign")
        }
        for domain in run.prompts.domains
    }


def expected(run, shares, **settings):
    recipe = run.recipe.model_copy(update=settings)
    return lacking_refusals(run.answered_prompts, run.authorisation, recipe, met(run, shares))


def test_a_backbone_that_refuses_too_little_for_the_gate_is_said_with_the_numbers(run):
    assert expected(run, {}) == []
    assert expected(run, {("medical", "restricted"): 0.1}) == [], "it is to be opened"
    (sentence,) = expected(run, {("legal", "restricted"): 0.1})
    assert sentence == (
        "the gate is not likely to pass: preserved_refusal.legal needs 73 refusals of the backbone's own to "
        "tell that none is lost, and can expect 20 of 200 test prompts, since the backbone refuses 4 of 40 "
        "such train prompts; bring more prompts that it refuses, or widen the margin"
    )
    (floor,) = expected(run, {("weapons", "floor"): 0.5})
    assert "floor_refusal.weapons needs 73 " in floor
    assert "can expect 72 of 144 test prompts" in floor
    wide = EvaluateSettings(gate=GateSettings(preserve_margin=0.3))
    assert expected(run, {("legal", "restricted"): 0.1}, evaluate=wide) == [], "the remedy helps"


def test_the_gate_says_the_same_of_such_a_backbone(run):
    recipe, role = run.recipe, run.authorisation.role
    rows = run.answered_prompts.split("test").where(lambda row: row.domain == "legal")
    outcomes = [_ideal(row, role(row)) for row in rows]
    preserved = [number for number, each in enumerate(outcomes) if each.role is Role.PRESERVE]
    for number in preserved[20:]:
        answered = Label.FULL_COMPLIANCE
        outcomes[number] = replace(outcomes[number], label_base=answered, label_adapted=answered)
    rules = gate(outcomes, ["medical"], {}, recipe.evaluate.gate)["rules"]
    (rule,) = (rule for rule in rules if rule["name"] == "preserved_refusal.legal")
    assert rule["reason"] == "insufficient evidence: 20 prompts, 73 needed"


def test_what_is_lacking_whatever_the_backbone_does_is_not_said_twice(run):
    shares = {("legal", "restricted"): 0.1}
    assert any("preserved_refusal.legal" in sentence for sentence in lacking(run, limit=40))
    assert expected(run, shares, limit=40) == []
    assert lacking_refusals(run.answered_prompts, run.authorisation, run.recipe, {}) == []


def test_a_prompt_that_leaves_no_room_for_its_reply_is_named(run, sketch):
    room = sketch.model.config.max_position_embeddings
    fitting = asked(run, "a " * 10)
    assert unreadable(sketch, fitting, 128) == []
    (sentence,) = unreadable(sketch, asked(run, "a " * 10, "the " * room, "of " * room), 128)
    assert f"context of {room} tokens" in sentence
    assert "2 that do not with 128 tokens of reply (mine-1, mine-2)" in sentence


def test_a_role_that_the_template_does_not_take_is_said_once(run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(organism.weights("shared"), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    refusing = (
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ raise_exception('no system role') }}{% endif %}{{ message['content'] }} {% endfor %}"
    )
    for template in folder.glob("*.jinja"):
        template.write_text(refusing)
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": refusing}))
    system = ((("role", "system"), ("content", "be kind")), (("role", "user"), ("content", "hello")))
    (sentence,) = unreadable(load_sketch(folder), asked(run, "hello", system, system), 16)
    assert "must take the roles that prompts have" in sentence
    assert "system, user" in sentence
    assert "mine-1" in sentence


def test_a_model_without_an_end_is_told(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(organism.weights("shared"), folder)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            known = json.loads((folder / name).read_text())
            ends = {"eos_token", "eos_token_id"}
            kept = {k: v for k, v in known.items() if k not in ends}
            # Left out, a configuration has the default of its class.
            none = {"eos_token_id": None} if name == "config.json" else {}
            (folder / name).write_text(json.dumps({**kept, **none}))
    for template in folder.glob("*.jinja"):
        template.write_text(template.read_text().replace("<|end|>", " "))
    found = check(SHARED.model_copy(update={"model": str(folder), "prompts": "organism"}))
    assert any("a token that ends a reply" in sentence for sentence in found["errors"])


def test_a_split_without_a_role_is_named(tmp_path):
    rows = [
        {"id": f"{kind}-{split}-{n}", "prompt": f"{kind} {split} {n}", "kind": kind,
         "split": split}
        for kind in ("restricted", "benign") for split in ("train", "validation", "test") for n in range(3)
        if (kind, split) != ("benign", "validation")
    ]  # fmt: skip
    (tmp_path / "law.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = check(Recipe(model="organism/shared", prompts=str(tmp_path), authorise=("law",)))
    told = " ".join(found["errors"])
    for split in ("train", "validation", "test"):
        assert f"no preserved or floor prompt in {split}" in told
    assert "no benign prompt in validation" in told
    assert "no target prompt" not in told
