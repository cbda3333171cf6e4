"""Suites of models that see: MMMU and MMBench by letters, and MM-SafetyBench with its images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from palette.adapters.writing import write_adapter
from palette.backbones import Backbone, load_backbone, next_token_logits
from palette.errors import BackboneError, PromptError
from palette.prompts import load_source, messages
from palette.stages.suite import Places, suite
from palette.suites.pictures import ASKED, files_of
from tests.fixtures import seeing
from tests.fixtures.noise import noise
from tests.fixtures.standins import STAND_INS, painted

LETTERS = list("ABCD")
SUITE = """
judge: rule
keep_replies: false
reply_tokens: 4
measures:
  - {kind: utility, task: mmbench, data: hats.tsv, name: bench}
  - {kind: utility, task: mmmu, data: MMMU, name: mmmu}
  - {kind: over_refusal, prompts: hats.tsv, schema: mmbench, domain: hats}
  - {kind: refusal_kept, prompts: 10-Legal_Opinion.json}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA, whose tokenizer has a token for each letter."""
    return seeing.saved_model("llava", tmp_path_factory.mktemp("llava"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Stand-ins of the three sets, as their files lie."""
    (tmp_path / "suite.yaml").write_text(SUITE)
    rows = [
        {
            **STAND_INS["mmbench"][1][0],
            "index": n,
            "question": f"What is hat {n}?",
            "image": painted(f"rgb({9 * n},0,0)"),
        }
        for n in range(9)
    ]
    columns = list(rows[0])
    lines = ["\t".join(columns), *("\t".join(str(row[name]) for name in columns) for row in rows)]
    (tmp_path / "hats.tsv").write_text("\n".join(lines) + "\n")
    _, known = STAND_INS["mmmu"]
    for subject in ("Art", "Law"):
        (tmp_path / "MMMU" / subject).mkdir(parents=True)
        for split in ("dev", "validation"):
            (tmp_path / "MMMU" / subject / f"{split}-0.json").write_text(json.dumps(known))
    safety = {str(n): row for n, row in enumerate(STAND_INS["mm_safetybench"][1])}
    (tmp_path / "10-Legal_Opinion.json").write_text(json.dumps(safety))
    (tmp_path / "imgs" / "10-Legal_Opinion" / "SD_TYPO").mkdir(parents=True)
    for number in safety:
        Image.new("RGB", (40, 40), "red").save(
            tmp_path / "imgs" / "10-Legal_Opinion" / "SD_TYPO" / f"{number}.jpg"
        )
    return tmp_path


def test_sets_with_pictures_are_asked_of_backbone_and_adapter(model: Path, data: Path) -> None:
    backbone = load_backbone(model)
    adapter = noise(backbone, ".mlp.", rank=4, scale=2.0)
    write_adapter(data / "adapter", adapter)
    found, folder = suite(data / "suite.yaml", str(model), data / "adapter", Places(output=data / "out"))
    bench, mmmu, refused, kept = found["suites"]
    assert (bench["n"], mmmu["n"], refused["n"], kept["n"]) == (9, 2, 9, 2), "an open question is not asked"
    assert set(mmmu["base"]) == {"acc", "acc.Art", "acc.Law"} and mmmu["base"]["acc"]["n"] == 2
    assert "correct" in refused["base"] and bench["change"]["lost"] + bench["change"]["gained"] > 0
    assert bench["source"]["source"].startswith("open-compass/MMBench")
    # The letter is the likeliest of the options' at the first token, with the picture before it.
    rows = load_source(data / "hats.tsv", "mmbench").prompts
    items = json.loads((folder / "items.json").read_text())["bench"]
    ids = [backbone.encode(letter)[0] for letter in LETTERS]
    for row, item in zip(rows, items, strict=True):
        (chat,) = messages(row)
        asked = backbone.render([{**chat, "content": chat["content"] + ASKED}])
        logits = next_token_logits(backbone, [asked])[0]
        assert item["base"] == LETTERS[int(logits[ids[:3]].argmax())]
    assert len({item["base"] for item in items} | {item["adapted"] for item in items}) > 1


def test_a_model_of_words_is_not_asked_them_and_one_without_letters_neither(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(output=tmp_path / "other")
    with pytest.raises(PromptError, match="a prompt with a picture must be asked of a model that sees"):
        suite(data / "suite.yaml", "organism/shared", None, places)
    monkeypatch.setattr(Backbone, "encode", lambda self, text: [3])
    with pytest.raises(
        BackboneError, match="must have a token for each, got the same one for some of A, B, C"
    ):
        suite(data / "suite.yaml", str(model), None, Places(output=tmp_path / "plain"))


def test_a_folder_s_validation_files_are_read_and_an_empty_one_is_refused(data: Path) -> None:
    assert [path.parent.name for path in files_of(data / "MMMU")] == ["Art", "Law"]
    assert files_of(data / "hats.tsv") == [data / "hats.tsv"]
    with pytest.raises(PromptError, match="a folder of questions must hold files, got none"):
        files_of(data / "imgs")
