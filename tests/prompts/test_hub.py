from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import PromptError
from palette.prompts import PromptSources, load_prompts, load_source, read_sources
from palette.prompts.hub import SPLITS, our_split, read_hub_folder

SECRET = "The wily walrus waters seventeen wisterias"
Write = Callable[..., Path]


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"prompt": f"How {name}?", "kind": "benign"} for name in names]


def card(folder: Path, text: str) -> Path:
    (folder / "README.md").write_text(f"---\n{text}---\n# Hats\n")
    return folder


def error(action: Callable[[], object]) -> str:
    with pytest.raises(PromptError) as caught:
        action()
    return str(caught.value)


def splits(prompts: Iterable[Any]) -> dict[str, str]:
    return {row.prompt: row.split for row in prompts}


@pytest.mark.parametrize(
    "names",
    [
        (
            "data/train-00000-of-00001.parquet",
            "data/validation-00000-of-00001.parquet",
            "data/test-00000-of-00001.parquet",
        ),
        ("train.csv", "dev.tsv", "test.json"),
        ("hats_train.jsonl.csv", "my-valid.csv", "eval.csv"),
        ("training/a.jsonl", "val/b.jsonl", "test/deep/c.jsonl"),
    ],
)
def test_splits_are_known_by_the_names_of_files_and_folders(
    names: tuple[str, ...], write: Write, tmp_path: Path
) -> None:
    for name, letter in zip(names, "abc", strict=True):
        write(f"hats/{name}", rows(letter))
    source = load_source(tmp_path / "hats")
    assert splits(source.prompts) == {"How a?": "train", "How b?": "validation", "How c?": "test"}
    assert (source.name, source.prompts.domains, source.rows) == ("hats", ("hats",), 3)


def test_shards_are_of_one_split_and_other_files_are_no_data(write: Write, tmp_path: Path) -> None:
    for name, letter in (
        ("train-00000-of-00002", "a"),
        ("train-00001-of-00002", "b"),
        ("test-00000-of-00001", "c"),
    ):
        write(f"hats/data/{name}.jsonl", rows(letter))
    write("hats/labels.csv", [{"label": "x"}])
    write("hats/.cache/train.jsonl", rows("x"))
    write("hats/dataset_infos.json", [{"a": 1}])
    assert splits(load_source(tmp_path / "hats").prompts) == {
        "How a?": "train",
        "How b?": "train",
        "How c?": "test",
    }


@pytest.mark.parametrize("name", ["hats.csv", "train.csv", "data/train-00000-of-00001.csv"])
def test_what_has_no_other_split_than_train_is_split_by_hash(name: str, write: Write, tmp_path: Path) -> None:
    names = [str(i) for i in range(30)]
    write(f"hats/{name}", rows(*names))
    alone = load_source(write("alone.csv", rows(*names)))
    assert splits(load_source(tmp_path / "hats").prompts) == splits(alone.prompts)
    assert set(splits(load_source(tmp_path / "hats", split="train").prompts).values()) == {"train"}


def test_a_test_split_alone_stays_one(write: Write, tmp_path: Path) -> None:
    write("hats/test.csv", rows("a", "b"))
    assert set(splits(load_source(tmp_path / "hats").prompts).values()) == {"test"}


def test_splits_of_other_names_are_labels_that_a_map_may_use(write: Write, tmp_path: Path) -> None:
    for name in ("harmful", "benign"):
        write(f"hats/{name}.csv", [{"goal": f"{name} {i}", "id": i} for i in range(20)])
    card(
        tmp_path / "hats",
        "configs:\n- config_name: behaviors\n  data_files:\n  - {split: harmful, path: harmful.csv}\n"
        "  - {split: benign, path: benign.csv}\nlicense: mit\n",
    )
    source = load_source(
        tmp_path / "hats",
        columns={"prompt": "goal", "kind": "(split)"},
        map={"kind": {"harmful": "restricted", "benign": "benign"}},
        tier="C",
    )
    assert {(row.prompt.split()[0], row.kind) for row in source.prompts if isinstance(row.prompt, str)} == {
        ("harmful", "restricted"),
        ("benign", "benign"),
    }
    assert source.licence == "mit"
    assert {row.split for row in source.prompts} == {"train", "validation", "test"}
    one = load_source(
        tmp_path / "hats", columns={"prompt": "goal"}, where={"(split)": "benign"}, kind="benign"
    )
    assert (one.rows, len(one.prompts)) == (40, 20)


def test_a_map_of_splits_gives_others(write: Write, tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(f"hats/{name}.csv", rows(name))
    words = {"(split)": {"train": "validation", "test": "test"}}
    assert splits(load_source(tmp_path / "hats", map=words).prompts) == {
        "How train?": "validation",
        "How test?": "test",
    }


def test_parts_may_number_their_rows_each_for_itself(write: Write, tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(f"hats/{name}.csv", [{"id": 1, **row} for row in rows(name)])
    words = {"(split)": {"train": "test", "test": "test"}}
    for keys in ({}, {"map": words}, {"columns": {"hazard": "(split)"}}):
        found = load_source(tmp_path / "hats", **keys).prompts
        assert [row.id for row in found] == ["hats/test:1", "hats/train:1"]


CONFIGS = """configs:
- config_name: law
  data_files:
  - {split: train, path: "law/a*.csv"}
  - split: test
    path: [law/b.csv, law/c.csv]
- config_name: all
  default: true
  data_files: "**/*.csv"
- config_name: few
  data_dir: law
"""


def test_a_config_is_the_one_asked_for_or_the_default(write: Write, tmp_path: Path) -> None:
    for name in ("law/a1", "law/a2", "law/b", "law/c", "hat"):
        write(f"hats/{name}.csv", rows(name))
    folder = card(tmp_path / "hats", CONFIGS)
    assert splits(load_source(folder, config="law").prompts) == {
        "How law/a1?": "train",
        "How law/a2?": "train",
        "How law/b?": "test",
        "How law/c?": "test",
    }
    assert len(load_source(folder).prompts) == 5
    assert len(load_source(folder, config="few").prompts) == 4
    assert load_source(folder, config="law").digest != load_source(folder).digest
    assert error(lambda: load_source(folder, config="lwa")) == (
        f"config must be one of 'law', 'all', 'few', got 'lwa'; did you mean law? ({folder})"
    )
    card(folder, CONFIGS.replace("  default: true\n", ""))
    assert error(lambda: load_source(folder)) == (
        f"config must be one of 'law', 'all', 'few', got none; name one with 'config' ({folder})"
    )


def test_a_folder_of_domains_is_read_as_ever_unless_its_card_or_the_source_says_otherwise(
    write: Write, tmp_path: Path
) -> None:
    for name in ("train", "test"):
        write(f"own/{name}.jsonl", [{"id": name, **row} for row in rows(name)])
    own = tmp_path / "own"
    assert load_source(own).prompts == load_prompts(own, answers=True)
    (own / "README.md").write_text("---\n: no yaml: [\n---\n")
    assert load_source(own).prompts.domains == ("test", "train")
    assert load_source(own, config="default").prompts.domains == ("own",)
    card(own, "configs:\n- config_name: default\n  data_files: train.jsonl\n")
    assert splits(load_source(own).prompts).keys() == {"How train?"}


def test_a_known_set_is_known_in_a_folder_too(stand_in: Callable[[str], Path], tmp_path: Path) -> None:
    path = stand_in("xstest")
    (tmp_path / "hub").mkdir()
    path.rename(tmp_path / "hub" / "test.csv")
    source = load_source(tmp_path / "hub")
    assert (source.name, source.licence) == ("xstest/hub", "CC BY 4.0")
    assert {row.split for row in source.prompts} == {"test"}


def test_a_folder_is_one_source_of_a_list(write: Write, tmp_path: Path) -> None:
    write("hats/test.csv", rows("a"))
    own = write("zoo.csv", rows("b"))
    prompts, read = read_sources(
        PromptSources.model_validate({"sources": [str(tmp_path / "hats"), str(own)]})
    )
    assert ([each.name for each in read], len(prompts)) == (["hats", "zoo"], 2)


BROKEN: list[tuple[str, str]] = [
    (
        "configs: [\n",
        "what stands between the --- of a README.md must be a YAML mapping, got another; mend it (README)",
    ),
    ("configs: []\n", "configs"),
    ("configs:\n- data_files: a.csv\n", "configs"),
    ("configs:\n- config_name: a\n  data_files: 3\n", "configs"),
    ("configs:\n- config_name: a\n  data_files:\n  - {path: a.csv}\n", "configs"),
    ("configs:\n- config_name: a\n  data_files:\n  - {split: train}\n", "configs"),
    ("configs:\n- config_name: a\n  data_dir: [b]\n", "configs"),
    ("configs:\n- config_name: a\n  data_files:\n  - {split: to train, path: a.csv}\n", "configs"),
    *(
        (
            f"configs:\n- config_name: a\n  data_files: {path}\n",
            "a path in a README.md must lead into its folder, got one that leads out of it; mend it (README)",
        )
        for path in ("/etc/a.csv", "../a.csv", "b/../../a.csv")
    ),
    *(
        (
            f"configs:\n- config_name: a\n  data_files: {path}\n",
            f"data_files of a README.md must find files, got none for '{path}'; complete the folder, or mend "
            "the path (README)",
        )
        for path in ("b.csv", ".")
    ),
    (
        "configs:\n- config_name: a\n  data_files:\n  - {split: train, path: a.csv}\n"
        "  - {split: test, path: '*.csv'}\n",
        "a file must be of one split, got two; mend configs in README.md (FOLDER/a.csv)",
    ),
]
CONFIGS_LAW = (
    "configs of a README.md must be a list of {config_name, data_files}, and data_files a path, a list of "
    "paths, or a list of {split, path}, got another; mend it, or give each file as a source (README)"
)


@pytest.mark.parametrize(("text", "sentence"), BROKEN)
def test_a_card_that_breaks_a_law_is_refused(text: str, sentence: str, write: Write, tmp_path: Path) -> None:
    write("hats/a.csv", rows("a"))
    folder = card(tmp_path / "hats", text)
    expected = CONFIGS_LAW if sentence == "configs" else sentence
    expected = expected.replace("(README)", f"({folder}/README.md)").replace("FOLDER", str(folder))
    assert error(lambda: load_source(folder)) == expected
    # The remedy: the file as a source of its own.
    assert len(load_source(folder / "a.csv").prompts) == 1


def test_a_card_that_is_no_text_is_refused(write: Write, tmp_path: Path) -> None:
    write("hats/a.csv", rows("a"))
    path = tmp_path / "hats" / "README.md"
    path.write_bytes(b"\xff")
    assert error(lambda: load_source(path.parent)) == (
        f"a README.md must be readable as UTF-8, got another ({path})"
    )


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert error(lambda: load_source(tmp_path)) == (
        "a folder of prompts must hold <domain>.jsonl, or data files in the hub's layout, got neither; check "
        f"the path ({tmp_path})"
    )


def test_a_config_is_of_a_folder(write: Write) -> None:
    path = write("a.csv", rows("a"))
    assert error(lambda: load_source(path, config="default")) == (
        f"config must be of a folder in the hub's layout, got another path; leave it out ({path})"
    )


def test_no_error_of_a_folder_shows_a_text(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([{"prompt": SECRET, "kind": SECRET}]))
    assert SECRET not in error(lambda: load_source(tmp_path))
    card(tmp_path, f"configs:\n- config_name: {SECRET}\n  data_files: '{SECRET}'\n")
    assert SECRET not in error(lambda: load_source(tmp_path))
    assert SECRET not in error(lambda: load_source(tmp_path, config="a"))


@given(st.text())
def test_a_split_is_ours_if_its_name_is_a_known_word(name: str) -> None:
    assert our_split(name) == SPLITS.get(name.casefold())
    assert our_split(None) is None


def test_the_digest_is_of_the_files_names_and_bytes(write: Write, tmp_path: Path) -> None:
    write("one/test.csv", rows("a"))
    write("two/test.csv", rows("a"))
    write("three/eval.csv", rows("a"))
    digests = [read_hub_folder(tmp_path / name, None).digest for name in ("one", "two", "three")]
    assert digests[0] == digests[1] != digests[2]
