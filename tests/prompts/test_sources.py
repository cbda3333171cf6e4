from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from palette.errors import PromptError
from palette.prompts import PromptSources, load_prompts, load_source, messages, read_sources
from palette.prompts.rows import Prompt
from palette.prompts.schemas import SCHEMAS
from tests.fixtures.standins import STAND_INS

SECRET = "The wily walrus waters seventeen wisterias"
OWN = {"id": "1", "prompt": "How tall is a giraffe?", "kind": "restricted", "tier": "A", "domain": "zoo"}


def error(action: Callable[[], object]) -> str:
    with pytest.raises(PromptError) as caught:
        action()
    return str(caught.value)


def sources(*each: Any, **more: Any) -> PromptSources:
    return PromptSources.model_validate({"sources": list(each), **more})


def test_a_file_of_one_s_own_keeps_every_label_it_gives(write: Any) -> None:
    labels = {"split": "test", "tier": "B", "hazard": "spc", "answer": "Five metres."}
    path = write("animals.jsonl", [{**OWN, **labels, "note": "ignored", "image": "a.png"}])
    Image.new("RGB", (4, 4)).save(path.parent / "a.png")
    source = load_source(path)
    (row,) = source.prompts
    assert {key: getattr(row, key) for key in labels} == labels
    assert [picture.path for picture in row.pictures] == [path.parent / "a.png"]
    assert (row.id, row.domain, row.kind) == ("animals:1", "zoo", "restricted")
    assert (source.licence, source.origin) == ("not stated", "animals.jsonl")


def test_a_source_s_labels_are_for_rows_that_state_none(write: Any) -> None:
    path = write("q.csv", [{"prompt": "A?", "tier": "C"}, {"prompt": "B?", "tier": ""}])
    source = load_source(
        path,
        domain="health",
        kind="restricted",
        tier="A",
        hazard="spc_hlt",
        split="validation",
        name="ward",
        licence="ours",
        origin="the ward",
    )
    assert [(r.tier, r.domain, r.hazard, r.split) for r in source.prompts] == [
        ("C", "health", "spc_hlt", "validation"),
        ("A", "health", "spc_hlt", "validation"),
    ]
    assert source.to_json() == {
        "name": "ward",
        "digest": source.digest,
        "licence": "ours",
        "source": "the ward",
        "rows": 2,
    }
    assert re.fullmatch("[0-9a-f]{64}", source.digest)


def test_messages_are_read_as_in_a_folder(write: Any) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
    (row,) = load_source(write("zoo.jsonl", [{**OWN, "prompt": chat}])).prompts
    assert messages(row) == chat


def test_the_domain_of_a_file_of_one_s_own_is_its_name(write: Any) -> None:
    path = write("zoo.csv", [{"prompt": "A?"}])
    assert load_source(path, kind="benign").prompts.domains == ("zoo",)


def test_a_column_map_names_what_the_file_calls_otherwise(write: Any) -> None:
    rows = [{"question": "A?", "nr": 7, "prompt": "not this", "level": "A"}]
    path = write("zoo.jsonl", rows)
    source = load_source(path, columns={"prompt": "question", "id": "nr", "tier": "level"}, kind="restricted")
    (row,) = source.prompts
    assert (row.prompt, row.id, row.tier) == ("A?", "zoo:7", "A")
    known = write("a.csv", [{"text": "A?", "class": "Violence", "from": "x"}])
    columns = {"forbidden_prompt": "text", "category": "class", "source": "from"}
    assert load_source(known, columns=columns).name == "strongreject/a"


def test_ids_do_not_change_when_rows_are_moved_added_or_relabelled(write: Any) -> None:
    rows = [{"prompt": f"How {i}?", "kind": "benign"} for i in range(5)]
    before = {row.prompt: row.id for row in load_source(write("zoo.csv", rows)).prompts}
    other = [{"prompt": "New?", "kind": "benign"}, *reversed(rows)]
    after = {row.prompt: row.id for row in load_source(write("zoo.csv", other), domain="sea").prompts}
    assert before.items() < after.items()
    assert before["How 0?"] == "zoo:4396b7521226d7df"


def test_splits_go_by_words_so_that_variants_of_a_prompt_share_one(write: Any) -> None:
    plain = load_source(write("a.csv", [{"prompt": f"How {i}?", "kind": "benign"} for i in range(40)]))
    loud = load_source(write("b.csv", [{"prompt": f"HOW, {i}!", "kind": "benign"} for i in range(40)]))
    assert [row.split for row in plain.prompts] == [row.split for row in loud.prompts]
    assert {row.split for row in plain.prompts} == {"train", "validation", "test"}


def test_a_known_set_s_tier_is_made_stricter_and_never_looser(stand_in: Callable[[str], Path]) -> None:
    path = stand_in("harmbench")
    assert [row.tier for row in load_source(path).prompts] == ["B", "C", "C"]
    assert [row.tier for row in load_source(path, tier="A", domain="cyber", hazard="spc").prompts] == [
        "C",
        "B",
        "C",
    ]
    assert {row.tier for row in load_source(path, tier="C").prompts} == {"C"}
    assert {row.hazard for row in load_source(path, hazard="spc").prompts} == {"iwp", "ipv", "spc"}


def test_a_prompt_that_stands_again_in_a_file_is_refused_or_left_out(write: Any) -> None:
    path = write("zoo.csv", [{"prompt": text, "kind": "benign"} for text in ("A b?", "a B", "C?")])
    found = error(lambda: load_source(path))
    assert found.startswith(
        "a prompt must stand once, whatever its case, spacing and punctuation, got 1 that"
    )
    assert found.endswith("set drop_overlaps to true to leave them out, or remove them (zoo)")
    source = load_source(path, drop_overlaps=True)
    assert (source.rows, source.dropped, len(source.prompts)) == (3, 1, 2)
    assert source.to_json()["source"] == "zoo.csv; left out because they stand again: 1"


def test_overlaps_between_sources_and_splits_are_refused_or_left_out(write: Any) -> None:
    rows = [{"prompt": f"How {i}?", "kind": "benign"} for i in range(30)]
    fit, test = write("fit.csv", rows[:20]), write("test.csv", rows[11:])
    given = [{"path": str(fit), "split": "train"}, {"path": str(test), "split": "test"}]
    found = error(lambda: read_sources(sources(*given)))
    assert "got 9 that stand again, 9 of them in another split ('fit:" in found
    assert found.endswith(
        "and 1 more); set prompts.drop_overlaps to true to leave them out, or remove them (prompts.sources)"
    )
    prompts, read = read_sources(sources(*given, drop_overlaps=True))
    assert [(each.name, each.rows, each.dropped) for each in read] == [("fit", 20, 9), ("test", 19, 0)]
    assert (len(prompts.split("train")), len(prompts.split("test"))) == (11, 19)


def test_sources_are_read_together_in_order_of_domain(
    stand_in: Callable[[str], Path], write: Any, tmp_path: Path
) -> None:
    own = write("own/zoo.jsonl", [{"id": "z", "prompt": "Own?", "kind": "benign"}])
    prompts, read = read_sources(
        sources(str(stand_in("xstest")), {"path": str(own.parent), "name": "folder"})
    )
    assert [each.name for each in read] == ["xstest/xstest", "folder"]
    assert prompts.domains == ("general", "hate", "violent_crimes", "zoo")
    assert [row.domain for row in prompts] == sorted(row.domain for row in prompts)
    assert read[1].prompts == load_prompts(own.parent, answers=True)


def test_a_glob_is_one_source_a_file(write: Any, tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(f"{name}.csv", [{"prompt": f"{name}?", "kind": "benign"}])
    _, read = read_sources(sources(str(tmp_path / "*.csv")))
    assert [each.name for each in read] == ["a", "b"]
    assert error(lambda: read_sources(sources(str(tmp_path / "*.json")))) == (
        f"a glob must find a file, got none; check the path ({tmp_path / '*.json'})"
    )
    named = sources({"path": str(tmp_path / "*.csv"), "name": "x"})
    assert error(lambda: read_sources(named)) == f"a name is of one file, got x for 2 ({tmp_path / '*.csv'})"


LAWS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"kind": "bad"}, {}, "kind must be one of restricted, benign, got 'bad' (PATH:1)"),
    ({"kind": SECRET}, {}, "kind must be one of restricted, benign, got a text of 42 characters (PATH:1)"),
    ({"tier": "D"}, {}, "tier must be one of A, B, C, got 'D' (PATH:1)"),
    (
        {"split": SECRET},
        {},
        "split must be one of train, validation, test, got a text of 42 characters (PATH:1)",
    ),
    (
        {"kind": ""},
        {},
        "a row must have a kind, got none; name the column that says it with 'columns' (and 'map'), or give "
        "the source 'kind' if it is the same for all rows (PATH:1)",
    ),
    (
        {"tier": None},
        {},
        "a row must have a tier where it is restricted, got none; name the column that says it with "
        "'columns' (and 'map'), or give the source 'tier' if it is the same for all rows (PATH:1)",
    ),
    ({"prompt": " "}, {}, "prompt must be a text, or a list of {role, content} messages, got str (PATH:1)"),
    (
        {"prompt": ""},
        {},
        "prompt must be a text, or a list of {role, content} messages, got an empty one (PATH:1)",
    ),
    (
        {"prompt": "a\ud800"},
        {},
        "a prompt must be Unicode, got half a character (a lone surrogate); write the character whole, or "
        "leave it out (PATH:1)",
    ),
    (
        {"prompt": [SECRET]},
        {},
        "prompt must be a text, or a list of {role, content} messages, got list (PATH:1)",
    ),
    (
        {"answer": [SECRET, 5]},
        {},
        "answer must be a text that is not empty, or a list of such, got a value of type list (PATH:1)",
    ),
    ({"hazard": SECRET}, {}, "hazard must be a short code, got a text of 42 characters (PATH:1)"),
    (
        {"domain": SECRET},
        {},
        "a domain's name must be lower-case letters, digits, '-' and '_', got a text of 42 characters; "
        "give the source a 'domain' (PATH:1)",
    ),
    (
        {},
        {"schema": "xtest"},
        "schema must be one of harmbench, jailbreakbench, strongreject, advbench, ailuminate, "
        "medsafetybench, sorrybench, mm_safetybench, xstest, xstest_v2, cyberseceval_frr, coconot, "
        "coconot_contrast, gsm8k, kqa, medquad, pubmedqa, legalbench, tatqa, labsafety, mmlu, mmmu, mmbench, "
        "rows, or "
        "file.py:name, got "
        "'xtest'; did you mean xstest? (PATH)",
    ),
    (
        {},
        {"schema": "advbench"},
        "a file of the schema advbench must have the columns goal, target, got no goal, target; name them "
        "with 'columns', or another schema (PATH)",
    ),
    (
        {},
        {"columns": {"prompt": "text"}},
        "a column map must name columns of the file, got 'text'; it has 'domain', 'id', 'kind', 'prompt', "
        "'tier' (PATH)",
    ),
    (
        {},
        {"columns": {"prompt": "id", "id": "id"}},
        "a column map must name each column once, got one for two; mend 'columns' (PATH)",
    ),
    (
        {},
        {"teir": "A"},
        "a source must follow its settings, got teir: Extra inputs are not permitted (PATH)",
    ),
    (
        {},
        {"domain": SECRET},
        "a source must follow its settings, got domain: String should match pattern "
        "'^[a-z0-9][a-z0-9_-]{0,63}\\z' (PATH)",
    ),
]


@pytest.mark.parametrize(("change", "options", "sentence"), LAWS)
def test_a_source_that_breaks_a_law_is_refused(
    change: dict[str, Any], options: dict[str, Any], sentence: str, write: Any
) -> None:
    path = write("zoo.jsonl", [{**OWN, **change}])
    assert error(lambda: load_source(path, **options)) == sentence.replace("PATH", str(path))


@pytest.mark.parametrize("schema", sorted(n for n, s in SCHEMAS.items() if s.category))
def test_an_unknown_category_is_refused_and_its_text_not_shown(schema: str, write: Any) -> None:
    name, rows = STAND_INS[schema]
    broken = {**rows[0], SCHEMAS[schema].category[0]: SECRET}
    path = write(name, [broken])
    found = error(lambda: load_source(path, schema))
    assert found.startswith(
        f"a category of {schema} must be one that has a hazard and a tier, got a text of "
    )
    assert SECRET not in found


def test_mm_safetybench_s_scenario_is_its_file_s_name(write: Any) -> None:
    _, rows = STAND_INS["mm_safetybench"]
    path = write("hats.json", rows, by_key=True)
    assert "a category of mm_safetybench must be one that has a hazard" in error(lambda: load_source(path))


def test_sorry_bench_of_45_categories_is_another_numbering_and_refused(write: Any) -> None:
    name, rows = STAND_INS["sorrybench"]
    path = write(name, [*rows, {**rows[0], "category": "45"}])
    assert "got '45'; read the file as 'rows'" in error(lambda: load_source(path))


@pytest.mark.parametrize("turns", [[], ["a", "b"], "a", [" "], [1]])
def test_sorry_bench_s_turns_are_one_text(turns: Any, write: Any) -> None:
    path = write("q.jsonl", [{"question_id": 1, "category": "1", "turns": turns}])
    assert error(lambda: load_source(path)).startswith("turns must be a list of one text, got ")


def test_the_kind_of_a_known_set_s_rows_is_fixed(stand_in: Callable[[str], Path]) -> None:
    path = stand_in("strongreject")
    assert error(lambda: load_source(path, kind="benign")) == (
        "the kind of a known set's rows is fixed, got benign for a restricted row of strongreject; leave "
        f"'kind' out ({path}:2, {path}:3)"
    )


def test_a_folder_states_its_own_labels(write: Any) -> None:
    path = write("own/zoo.jsonl", [{"id": "z", "prompt": "Own?", "kind": "benign"}]).parent
    assert error(lambda: load_source(path, "rows", tier="A")) == (
        "a folder of <domain>.jsonl states its own labels, got schema, tier; leave them out, give each file "
        f"as a source, or name the 'config' of a hub's folder ({path})"
    )


def test_two_sources_need_two_names_and_ids_are_unique(write: Any) -> None:
    one, two = (write(f"{name}/zoo.csv", [{"prompt": name, "kind": "benign"}]) for name in "ab")
    assert error(lambda: read_sources(sources(str(one), str(two)))) == (
        "a source must have a name of its own, got zoo twice; give each a 'name'"
    )
    same = write("c.csv", [{"id": "1", "prompt": text, "kind": "benign"} for text in ("A?", "B?")])
    assert error(lambda: load_source(same)) == f"an id must be unique, got 'c:1' twice ({same})"


def test_an_id_that_could_be_a_text_is_not_taken_over(write: Any) -> None:
    (row,) = load_source(write("zoo.csv", [{"id": SECRET, "prompt": SECRET, "kind": "benign"}])).prompts
    assert re.fullmatch("zoo:[0-9a-f]{16}", row.id)


def secretive(prompt: Prompt) -> None:
    shown = f"{prompt} {prompt!r} {[prompt]} {traceback.format_exception_only(ValueError(prompt))}"
    assert SECRET not in shown
    assert "Seventeen" not in shown
    assert prompt.id in shown


def test_no_prompt_shows_its_text(write: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = write("zoo.csv", [{"prompt": SECRET, "kind": "restricted", "tier": "C", "answer": "Seventeen"}])
    with caplog.at_level(logging.DEBUG):
        source = load_source(path)
    (prompt,) = source.prompts
    secretive(prompt)
    assert SECRET not in f"{source!r} {source.prompts} {source.to_json()} {caplog.text}"


def test_a_prompt_that_shows_its_text_is_caught() -> None:
    class Loud(Prompt):
        def __repr__(self) -> str:
            return str(vars(self))

    with pytest.raises(AssertionError):
        secretive(Loud("1", "zoo", SECRET, "restricted", "test", "Seventeen"))


@pytest.mark.parametrize(
    "column", ["id", "kind", "split", "tier", "answer", "hazard", "image", "prompt", SECRET]
)
@pytest.mark.parametrize("value", [SECRET, [SECRET], {"a": SECRET}, None, 7])
def test_no_error_of_either_reader_shows_a_text_wherever_it_stands(
    column: str, value: Any, write: Any
) -> None:
    row = {**OWN, "prompt": SECRET, "tier": "C", column: value}
    folder = write("own/zoo.jsonl", [{k: v for k, v in row.items() if k != "domain"}] * 2).parent
    for action in (lambda: load_prompts(folder), lambda: load_source(folder / "zoo.jsonl")):
        try:
            action()
        except PromptError as caught:
            assert SECRET not in "".join(traceback.format_exception(caught))
            assert SECRET not in repr(caught)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_no_error_of_a_known_set_shows_a_text(schema: str, write: Any) -> None:
    name, rows = STAND_INS[schema]
    columns = [column for column in rows[0] if column in SCHEMAS[schema].columns]
    for column in columns:
        for value in (SECRET, [SECRET, SECRET], ""):
            row = {**rows[0], SCHEMAS[schema].columns[0]: SECRET, column: value}
            path = write(Path(name).with_suffix(".json").name, [row, row], by_key=schema == "mm_safetybench")
            for dropped in (False, True):
                try:
                    shown = repr(load_source(path, schema, drop_overlaps=dropped))
                except PromptError as caught:
                    shown = "".join(traceback.format_exception(caught))
                assert SECRET not in shown
    assert json.dumps(columns)


def test_a_limit_and_a_length_leave_prompts_out_and_are_reported(write: Any) -> None:
    rows = [{"prompt": f"How {i}?", "kind": "benign"} for i in range(40)]
    long = {"prompt": "Why" * 30 + "?", "kind": "benign"}
    path = write("zoo.csv", [*rows, long])
    source = load_source(path, longest=80, limit=7)
    assert (source.rows, len(source.prompts)) == (41, 7)
    assert [row.prompt for row in source.prompts] == [f"How {i * 40 // 7}?" for i in range(7)]
    assert source.to_json()["source"] == (
        "zoo.csv; left out as longer than 80 characters: 1; left out by 'limit': 33"
    )
    assert load_source(path, longest=80, limit=7) == source
    assert len(load_source(path, limit=99).prompts) == 41
    assert error(lambda: load_source(path, longest=3)) == (
        f"longest must leave a prompt of at most 3 characters, got none of 41; raise it ({path})"
    )


def test_rows_are_chosen_first_then_translated_then_limited(write: Any) -> None:
    rows = [{"prompt": f"How {i}?", "label": i % 3} for i in range(9)]
    source = load_source(
        write("zoo.jsonl", rows),
        columns={"kind": "label"},
        where={"kind": [0, 1]},
        map={"kind": {0: "benign", 1: "restricted"}},
        tier="A",
        limit=4,
    )
    assert [(row.prompt, row.kind) for row in source.prompts] == [
        ("How 0?", "benign"),
        ("How 1?", "restricted"),
        ("How 4?", "restricted"),
        ("How 6?", "benign"),
    ]
    assert source.to_json()["source"] == "zoo.jsonl; left out by 'where': 3; left out by 'limit': 2"
    assert (
        load_source(
            write("sea.csv", rows),
            columns={"kind": "label"},
            where={"kind": 1},
            map={"kind": {"1": "benign"}},
        ).rows
        == 9
    )


def test_a_template_words_a_prompt_of_columns(write: Any) -> None:
    path = write("zoo.jsonl", [{"animal": "giraffe", "of": 7, "id": "g"}])
    (row,) = load_source(path, template="How tall is a {animal} of {of}?", kind="benign").prompts
    assert (row.id, row.prompt) == ("zoo:g", "How tall is a giraffe of 7?")
    hats = write("hats.csv", [{"goal": "Which hat?", "target": "Sure"}])
    (known,) = load_source(hats, template="Please: {goal}").prompts
    assert (known.prompt, known.kind, known.tier) == ("Please: Which hat?", "restricted", "C")
    assert error(lambda: load_source(path, template="How tall?")) == (
        "a source must follow its settings, got template: Value error, a template must name columns in "
        f"braces, as in {{question}} ({path})"
    )
    assert error(lambda: load_source(path, template="{beast}", kind="benign")) == (
        f"beast must be a text that is not empty, got an empty one ({path}:1)"
    )


def test_the_categories_of_a_safety_set_cannot_be_translated(stand_in: Callable[[str], Path]) -> None:
    path = stand_in("xstest")
    assert error(lambda: load_source(path, map={"label": {"unsafe": "safe", "safe": "safe"}})) == (
        f"the categories of a safety set are fixed, got a map of label for xstest; leave it out ({path})"
    )
    assert len(load_source(path, where={"label": "safe"}).prompts) == 1


@pytest.mark.parametrize("key", ["map", "where", "columns"])
def test_no_error_of_a_selection_shows_a_text(key: str, write: Any) -> None:
    path = write("zoo.jsonl", [{"prompt": "Why?", "kind": SECRET, SECRET: SECRET}])
    for column in ("kind", SECRET, "none"):
        given = {column: {"a": "b"}} if key == "map" else {column: "a"}
        assert SECRET not in error(lambda given=given: load_source(path, **{key: given}))
