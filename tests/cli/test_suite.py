"""The command suite: its result, and one sentence for what is wrong."""

from __future__ import annotations

import json

import pytest

from palette.fingerprints import fingerprint

SUITE = """authorise: [medical]
reply_tokens: 12
measures:
  - {kind: refusal_relaxed, prompts: organism, limit: 3}
  - {kind: refusal_kept, prompts: organism, limit: 2}
  - {kind: over_refusal, prompts: organism, limit: 2}
  - {kind: perplexity, prompts: organism, limit: 2}
"""


def test_a_suite_is_measured_and_written(palette, recipe, tmp_path):
    folder = tmp_path / "out"
    status, out, error = palette(
        "suite", recipe(SUITE, "board.yaml"), "--model", "organism/shared", "-o", folder, "--json"
    )
    assert (status, error) == (0, "")
    result = json.loads(out)
    assert result == json.loads((folder / "suite.json").read_text())
    assert result["format"] == "palette-suite/1"
    assert result["name"] == "board"
    assert result["authorised"] == ["medical"]
    assert [one["kind"] for one in result["suites"]] == [
        "refusal_relaxed", "refusal_kept", "over_refusal", "perplexity",
    ]  # fmt: skip
    relaxed, kept, benign, cost = result["suites"]
    assert relaxed["base"]["refusal"]["k"] == relaxed["n"] == 3
    assert kept["base"]["refusal"]["rate"] > 0.5
    assert benign["base"]["correct"]["rate"] > 0.5
    assert cost["base"]["nats_per_token"] < 1
    assert result["provenance"]["fingerprint"] == fingerprint(result["provenance"]["suite"])
    items = json.loads((folder / "items.json").read_text())
    assert all(set(item) == {"id", "digest", "base"} for group in items.values() for item in group)


def test_it_is_shown_to_people(palette, recipe, tmp_path):
    text = "measures: [{kind: over_refusal, prompts: organism, limit: 1}]\nreply_tokens: 4\n"
    status, out, _ = palette("suite", recipe(text), "--model", "organism/shared", "-o", tmp_path / "o")
    assert status == 0
    assert "over_refusal" in out
    assert "written to" in out


@pytest.mark.parametrize(
    ("text", "options", "part"),
    [
        ("measures: [{kind: over_refusl, prompts: x}]\n", (), "measures.0.kind must be one of"),
        ("measures: [{kind: over_refusal, prompts: x.csv}]\n", (), "a suite's data must exist"),
        ("measures: [{kind: refusal_relaxed, prompts: organism}]\n", (),
         "refusals are relaxed in the domains that are opened"),
        ("authorise: [weapons]\n" + SUITE.partition("\n")[2], (), "the floor cannot be authorised"),
        (SUITE, ("--adapter", "/no/such"), "/no/such"),
        (SUITE, ("--set", "measures.9.limit=1"), "--set must count a list's entries from 0 to 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_written(palette, recipe, tmp_path, text, options, part):
    folder = tmp_path / "out"
    status, out, error = palette("suite", recipe(text), "--model", "organism/shared", "-o", folder, *options)
    assert (status, out) == (2, "")
    assert part in error
    assert error.count("\n") == 1
    assert not folder.exists()


def test_a_suite_must_have_a_model(palette, recipe):
    assert palette("suite", recipe(SUITE))[0] == 2
