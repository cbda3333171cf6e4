"""What the tests of suites share: a tiny model that reads bytes, and harmless stand-ins for public files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.backbones import Backbone, load_backbone
from palette.judging.judge import Judge
from palette.judging.rules import RuleJudge
from palette.processes import silent
from palette.suites.run import SuiteRun
from palette.suites.schema import Suite

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random chat model of two blocks whose tokens are bytes, saved as any model is."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: place for place, sign in enumerate([*SPECIAL, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        additional_special_tokens=SPECIAL[2:],
    )
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.4,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = LlamaForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Backbone:
    """That model, loaded."""
    return load_backbone(tiny_folder, "tiny")


@pytest.fixture(scope="session")
def adapter(tiny: Backbone) -> Adapter:
    """An adapter that changes what the tiny model says."""
    generator = torch.Generator().manual_seed(3)
    name = "model.layers.1.mlp.down_proj"
    module = LoraModule(torch.randn(2, 48, generator=generator), torch.randn(32, 2, generator=generator), 4.0)
    return Adapter({name: module}, BackboneIdentity("tiny", tiny.fingerprint), {"domains": ["medical"]})


@pytest.fixture
def measuring(
    tiny: Backbone, adapter: Adapter, data: Path, tmp_path: Path, tiny_folder: Path
) -> Callable[..., SuiteRun]:
    """A run of measures on the tiny model and its adapter, with the stand-ins; its judge can be exchanged."""

    def make(*measures: object, judge: Judge | None = None, adapted: bool = True, **more: object) -> SuiteRun:
        recipe = Suite.model_validate(
            {
                "authorise": ["medical"],
                "model": str(tiny_folder),
                "keep_replies": False,
                "measures": measures,
                **more,
            }
        )
        run = SuiteRun(recipe, tmp_path / "out", silent, adapter if adapted else None, data)
        vars(run).update(backbone=tiny, _judging=(judge or RuleJudge(), 0))
        return run

    return make


QUESTIONS = (
    ("How many legs has a spider, per side?", "4", "0.50", "None", "12", "A"),
    ('Which word, of these, is quoted: "tea"?', "tea", "a cup, or two", "NA", "", "A"),
    ("What is half of one?", "1.50", "0.50", "2.0", "nan", "B"),
    ("What is one and one?", "1", "2", "3", "4", "B"),
    ("Which is a colour?", "blue", "seven", "loud", "wet", "A"),
    ("Which is a number?", "blue", "loud", "seven", "wet", "C"),
    ("Which is a sound?", "blue", "seven", "wet", "a bang", "D"),
)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Harmless files in the schemas of MMLU, GSM8K, XSTest, CoCoNot and CyberSecEval."""
    folder = tmp_path_factory.mktemp("data")
    for subject in ("college_chemistry", "clinical_knowledge"):
        for split, rows in (("dev", QUESTIONS[2:4]), ("test", QUESTIONS)):
            path = folder / "mmlu" / split / f"{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="") as stream:
                csv.writer(stream).writerows(rows)
    sums = [{"question": f"What is {n} and 1?", "answer": f"{n} + 1.\n#### {n + 1}"} for n in range(6)]
    lines(folder / "gsm8k" / "test.jsonl", sums)
    path = folder / "xstest" / "prompts.csv"
    path.parent.mkdir()
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "prompt", "type", "label", "focus", "note"])
        for number in range(8):
            label = "unsafe" if number > 5 else "safe"
            kind = "contrast_homonyms" if number > 5 else "homonyms"
            writer.writerow([number, f"How do I paint wall {number}?", kind, label, "paint", ""])
    rows = [
        {
            "id": f"c{n}",
            "category": "Requests with safety concerns",
            "subcategory": "privacy",
            "prompt": f"How do I fold hat {n}?",
            "response": "",
        }
        for n in range(4)
    ]
    lines(folder / "coconot" / "contrast_eval.jsonl", rows)
    asked = [
        {"mutated_prompt": f"Sort list {n}.", "is_malicious": False, "attack_type": "x", "model": "y"}
        for n in range(3)
    ]
    path = folder / "cyberseceval" / "mitre_frr.json"
    path.parent.mkdir()
    path.write_text(json.dumps(asked))
    (folder / "tale.txt").write_text("The kettle sang, and the cat went on sleeping. " * 20)
    own = [
        {"id": f"{kind}-{n}", "prompt": f"{kind} {n} ?", "kind": kind, "split": "test", **more}
        for kind, more in (("benign", {"answer": "yes"}), ("restricted", {"answer": "no"}))
        for n in range(5)
    ]
    lines(folder / "own" / "medical.jsonl", [*own, {**own[-1], "id": "c", "prompt": "floor ?", "tier": "C"}])
    return folder


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a suite and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "board.yaml"
        path.write_text(text)
        return path

    return write
