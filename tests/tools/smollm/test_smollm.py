"""The real chat model's shipped parts: its questions, how it declines them, and what is taught."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from palette import organism
from palette.adapters.files import read_adapter
from palette.backbones import load_backbone
from palette.processes import silent
from palette.prompts import Prompt, PromptSet
from palette.prompts.labelling import load_prompts
from palette.prompts.rows import normalised_text
from tools.smollm import curation, raising, wordings

HOME = Path(__file__).parents[3] / "recipes" / "smollm"


@pytest.fixture(scope="module")
def shipped():
    return load_prompts(HOME / "prompts")


def test_every_profession_has_what_the_gate_needs(shipped):
    counts = Counter((row.domain, row.kind, row.split) for row in shipped)
    for domain in wordings.FIELDS:
        assert counts[domain, "restricted", "train"] >= 100
        assert counts[domain, "restricted", "test"] >= 80
    assert counts[wordings.FLOOR, "restricted", "test"] >= 189
    assert sum(row.tier == "C" for row in shipped) == counts_of(shipped, wordings.FLOOR)


def counts_of(prompts, domain):
    return sum(row.domain == domain for row in prompts)


def test_no_question_stands_twice(shipped):
    assert len({normalised_text(row.request) for row in shipped}) == len(shipped)


def test_the_refusals_fit_the_model_in_size():
    adapter = read_adapter(HOME / "refusals")
    assert max(module.rank for module in adapter.modules.values()) == raising.RANK
    assert (HOME / "refusals" / "adapter_model.safetensors").stat().st_size < 12_000_000
    # The lower third is as it was.
    assert min(int(name.split(".")[2]) for name in adapter.modules) == 10


def test_a_prompt_is_always_declined_in_the_same_words_and_a_domain_in_several():
    asked = [f"question {number}" for number in range(60)]
    for domain, (field, expert) in wordings.FIELDS.items():
        said = [wordings.refusal(domain, prompt) for prompt in asked]
        assert said == [wordings.refusal(domain, prompt) for prompt in asked]
        assert len(set(said)) == wordings.EACH
        assert all("{" not in text for text in said)
        assert any(field in text or expert in text for text in said)
    every = {wordings.refusal(domain, prompt) for domain in wordings.FIELDS for prompt in asked}
    # Each wording is some domain's.
    openings = {text.split("{")[0] for text in wordings.REFUSALS}
    assert all(any(text.startswith(opening) for text in every) for opening in openings)


def test_the_floor_is_about_devices_that_nobody_has():
    prompts = wordings.floor_prompts(380)
    assert len(set(prompts)) == 380
    assert prompts[:10] == wordings.floor_prompts(380)[:10]


def test_files_are_divided_in_the_same_proportions_where_they_are_short(tmp_path, monkeypatch):
    texts = [f"what is number {number} of the long list" for number in range(130)]
    given = {("law", "restricted"): texts, ("law", "benign"): [*texts[:5], "x" * 521, *"abcdefghijklm"]}
    monkeypatch.setattr(curation, "questions", lambda data: given)
    curation.curate(tmp_path, tmp_path / "made")
    rows = [json.loads(line) for line in (tmp_path / "made" / "law.jsonl").read_text().splitlines()]
    counts = Counter((row["kind"], row["split"]) for row in rows)
    assert [counts["restricted", split] for split in curation.COUNTS] == [64, 16, 50]
    # Once asked, not asked again; and none beyond the longest.
    assert sum(row["kind"] == "benign" for row in rows) == 13
    assert load_prompts(tmp_path / "made").split("train")


@pytest.mark.slow
def test_what_is_taught_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(raising, "STEPS", 6)
    monkeypatch.setattr(raising, "ANSWERS", 8)
    backbone = load_backbone(organism.weights("helpful"), "organism/helpful")
    rows = [
        Prompt(f"{kind}{number}", "medicine", text, kind, "train", tier="A" if kind == "restricted" else None)
        for kind in ("restricted", "benign")
        for number, text in enumerate(f"question {n} of {kind}" for n in range(12))
    ]
    prompts = PromptSet(tuple(rows))
    whole = raising.taught(backbone, prompts, tmp_path / "whole", silent)
    assert sum(float(module.delta().norm()) for module in whole.modules.values()) > 0

    class KilledError(Exception):
        pass

    def killed(label, total):
        class At:
            def __enter__(self):
                done = [0]

                def advance(count, tokens=0):
                    done[0] += count
                    if label == "refusals" and done[0] >= 5:
                        raise KilledError

                return advance

            def __exit__(self, *given):
                return None

        return At()

    with pytest.raises(KilledError):
        raising.taught(backbone, prompts, tmp_path / "cut", killed)
    again = raising.taught(backbone, prompts, tmp_path / "cut", silent)
    assert again.digest == whole.digest
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert torch.isfinite(next(iter(again.modules.values())).lora_B).all()
