from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import PromptError
from palette.fingerprints import fingerprint
from palette.prompts import Prompt, PromptSet, messages
from palette.prompts.pictures import Picture
from palette.prompts.rows import (
    case_folded_hash,
    normalised_hash,
    redacted,
    repeated_prompts,
    require_distinct,
    split_by_hash,
)

LABELS = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["restricted", "benign"]),
    st.sampled_from([None, "A", "B", "C"]),
)


def prompt(text: Any = "How?", **labels: Any) -> Prompt:
    given = {"id": "1", "domain": "medical", "kind": "restricted", "split": "train", **labels}
    return Prompt(prompt=text, **given)


def prompt_set(labels: list[tuple[str, str, str | None]]) -> PromptSet:
    ordered = sorted(labels, key=lambda each: each[0])
    return PromptSet(
        tuple(prompt(id=str(i), domain=d, kind=k, tier=t) for i, (d, k, t) in enumerate(ordered))
    )


ROWS = st.lists(LABELS, max_size=30)


def chat(*turns: tuple[str, str]) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple((("content", content), ("role", role)) for role, content in turns)


def test_a_text_is_one_message_of_the_user() -> None:
    assert messages(prompt("How?")) == [{"role": "user", "content": "How?"}]


def test_the_request_is_the_last_message_of_the_user() -> None:
    turns = (
        (("role", "user"), ("content", "Why?")),
        (("role", "assistant"), ("content", "So.")),
        (("role", "user"), ("content", "How?")),
    )
    silent = prompt(((("role", "system"), ("content", "Be kind.")),), id="3")
    rows = PromptSet((prompt("Where?"), prompt(turns, id="2"), silent))
    assert rows.requests == ["Where?", "How?", ""] == [row.request for row in rows]


def test_messages_are_given_back_in_order() -> None:
    found = messages(prompt(chat(("system", "Be brief."), ("user", "How?"))))
    assert found == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]


@pytest.mark.parametrize("same", ["how?", "  HOW? ", "\nHow?\t", chat(("user", "how?"))])
def test_case_spacing_and_form_make_no_other_prompt(same: Any) -> None:
    assert case_folded_hash(prompt(same)) == case_folded_hash(prompt("How?"))


@pytest.mark.parametrize(
    "other", ["How", "Ho w?", chat(("system", "How?")), chat(("user", "How?"), ("user", "How?"))]
)
def test_other_words_roles_or_turns_make_another_prompt(other: Any) -> None:
    assert case_folded_hash(prompt(other)) != case_folded_hash(prompt("How?"))


def test_labels_make_no_other_prompt() -> None:
    assert case_folded_hash(prompt(id="2", domain="legal", answer="So.")) == case_folded_hash(prompt())


@pytest.mark.parametrize(
    ("digest", "split"),
    [
        ("00000000", "train"),
        ("99999999", "train"),
        ("9999999a", "validation"),
        ("bfffffff", "validation"),
        ("c0000000", "test"),
        ("ffffffff" + "0" * 56, "test"),
    ],
)
def test_the_borders_between_splits_never_move(digest: str, split: str) -> None:
    assert split_by_hash(digest) == split


def test_splits_share_prompts_about_sixty_fifteen_twenty_five() -> None:
    counts = Counter(split_by_hash(fingerprint(i)) for i in range(10000))
    assert abs(counts["train"] / 10000 - 0.60) < 0.02
    assert abs(counts["validation"] / 10000 - 0.15) < 0.02
    assert abs(counts["test"] / 10000 - 0.25) < 0.02


@given(ROWS, st.integers(0, 8))
def test_capping_keeps_the_fewer_of_the_cap_and_the_group_in_order(labels: list[Any], most: int) -> None:
    rows = prompt_set(labels)
    capped = rows.capped(most)
    before = Counter((row.domain, row.kind, row.tier) for row in rows)
    after = Counter((row.domain, row.kind, row.tier) for row in capped)
    assert after == Counter({group: min(most, count) for group, count in before.items() if most})
    assert capped.rows == tuple(row for row in rows if row in set(capped.rows))


@given(ROWS, st.integers(0, 8))
def test_capping_twice_is_capping_once(labels: list[Any], most: int) -> None:
    rows = prompt_set(labels)
    assert rows.capped(most).capped(most) == rows.capped(most)
    assert rows.capped(len(rows)) == rows


def test_capping_spreads_evenly_over_the_rows() -> None:
    assert [row.id for row in prompt_set([("a", "benign", None)] * 10).capped(4)] == ["0", "2", "5", "7"]


@given(ROWS)
def test_a_set_is_its_rows(labels: list[Any]) -> None:
    rows = prompt_set(labels)
    assert list(rows) == list(rows.rows)
    assert len(rows) == len(rows.rows)
    assert rows.domains == tuple(sorted({row.domain for row in rows}))
    assert rows.where(lambda _: True) == rows
    assert len(rows.where(lambda _: False)) == 0


def test_a_split_holds_its_rows_only() -> None:
    rows = PromptSet((prompt(id="1"), prompt(id="2", split="test"), prompt(id="3")))
    assert [row.id for row in rows.split("train")] == ["1", "3"]
    assert len(rows.split("validation")) == 0


def test_the_fingerprint_reads_every_label_except_the_answer() -> None:
    plain = PromptSet((prompt(),)).fingerprint
    assert PromptSet((prompt(answer="So."),)).fingerprint == plain
    changes: list[dict[str, Any]] = [
        {"id": "2"},
        {"domain": "legal"},
        {"text": "Why?"},
        {"kind": "benign"},
        {"split": "test"},
        {"tier": "A"},
        {"hazard": "spc"},
        {"pictures": (Picture("0a", Path("a.png")),)},
    ]
    assert len({plain, *(PromptSet((prompt(**change),)).fingerprint for change in changes)}) == 9


def test_answers_can_be_taken_off() -> None:
    assert PromptSet((prompt(answer="So."),)).without_answers() == PromptSet((prompt(),))


def test_a_required_set_is_itself_unless_it_is_empty() -> None:
    rows = PromptSet((prompt(),))
    assert rows.required("target") is rows
    with pytest.raises(PromptError) as caught:
        PromptSet(()).required("target")
    assert str(caught.value) == "every role needs at least one prompt, got no target prompt; add rows for it"


Key = Callable[[Prompt], str]

SAME = [
    "how tall is a giraffe",
    "HOW TALL IS A GIRAFFE?!",
    "  How  tall\nis a\tgiraffe ? ",
    "“How tall is a giraffe?”",
    "How tall is a giraffe\uff1f",
    "How tall is a gira\ufb00e?",
    "How tall is a gi\u200braffe?",
    "\uff28\uff4f\uff57 tall is a giraffe?",
]
OTHER = ["How tall is the giraffe?", "How tall is a gira ffe?", "How tall is a giraffé?", "¿?", "!!"]


def knows_the_same_and_no_other(key: Key) -> None:
    assert {key(prompt(text)) for text in SAME} == {key(prompt(SAME[0]))}
    assert len({key(prompt(text)) for text in [*OTHER, SAME[0]]}) == len(OTHER) + 1
    system = ((("content", "How tall is a giraffe?"), ("role", "system")),)
    assert key(prompt(system)) != key(prompt("How tall is a giraffe?"))
    here, there, other = (
        Picture(*each) for each in (("0a", Path("a")), ("0a", Path("b")), ("0b", Path("a")))
    )
    assert key(prompt(pictures=(here,))) == key(prompt(pictures=(there,)))
    assert len({key(prompt(pictures=each)) for each in ((), (here,), (other,), (here, other))}) == 4


def test_case_spacing_punctuation_and_invisible_characters_make_no_other_prompt() -> None:
    knows_the_same_and_no_other(normalised_hash)


def letters_only(row: Prompt) -> str:
    return "".join(mark for mark in str(row.prompt).casefold() if mark.isalnum())


@pytest.mark.parametrize("broken", [case_folded_hash, letters_only, lambda row: row.prompt])
def test_a_broken_hash_is_caught(broken: Key) -> None:
    with pytest.raises(AssertionError):
        knows_the_same_and_no_other(broken)


@given(st.text())
def test_a_text_is_like_itself_in_other_cases(text: str) -> None:
    assert normalised_hash(prompt(text)) == normalised_hash(prompt(text))
    assert normalised_hash(prompt(text + " x")) == normalised_hash(prompt(f" {text}  x."))


OVERLAPPING = [
    prompt(id="a", kind="benign", split="test"),
    prompt(id="b", tier="A", split="test"),
    prompt(id="c", tier="C", split="train"),
    prompt(id="d", tier="C", split="test"),
    prompt(id="e", tier="C", split="validation"),
]


@pytest.mark.parametrize("order", list(permutations(OVERLAPPING))[::17])
def test_the_strictest_is_kept_and_then_the_one_in_the_test_split(order: tuple[Prompt, ...]) -> None:
    pairs = repeated_prompts([*order, prompt("Why?", id="x")])
    assert {kept.id for kept, _ in pairs} == {"d"}
    assert [other.id for _, other in pairs] == [row.id for row in order if row.id != "d"]


def test_of_two_alike_the_first_is_kept() -> None:
    pairs = repeated_prompts([prompt(id="first"), prompt(id="second")])
    assert [(kept.id, other.id) for kept, other in pairs] == [("first", "second")]


def test_what_stands_again_is_counted_and_named_by_id() -> None:
    rows = [
        prompt(id=f"{name}:{i}", text=f"How {i}?", split=split)
        for name, split in (("one", "test"), ("two", "train"))
        for i in range(10)
    ]
    rows.append(prompt(id="one:0", text="how 0", split="test"))
    with pytest.raises(PromptError) as caught:
        require_distinct(rows, "here", "mend it")
    found = str(caught.value)
    assert found.startswith(
        "a prompt must stand once, whatever its case, spacing and punctuation, got 11 that stand again, "
        "10 of them in another split ('two:0' like 'one:0', 'one:0' twice, 'two:1' like 'one:1', "
    )
    assert found.endswith(" and 3 more); mend it (here)")
    require_distinct(rows[:10], "here", "mend it")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("A", "'A'"),
        (7, "7"),
        ("two words", "a text of 9 characters"),
        ("x" * 40, "a text of 40 characters"),
        (["a", "b"], "a value of type list"),
    ],
)
def test_a_word_is_shown_and_a_text_is_not(value: object, sentence: str) -> None:
    assert redacted(value) == sentence
    assert redacted("x" * 40, 60) == repr("x" * 40)
