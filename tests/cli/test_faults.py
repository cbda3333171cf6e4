"""What is wrong with a recipe and its prompts is told in one go, at once, and without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from palette import organism

ROWS = [
    {"id": f"{kind}-{split}-{n}", "prompt": f"{kind} {split} {n}", "kind": kind, "split": split,
     **({"tier": "A"} if kind == "restricted" else {})}
    for kind in ("restricted", "benign") for split in ("train", "validation", "test") for n in range(3)
]  # fmt: skip
HALF = '{"id": "half", "prompt": "an emoji \\ud83d alone", "kind": "benign"}'


def lines(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


@pytest.fixture
def broken(tmp_path):
    """Two sources with several rows that break several laws, and a recipe with faults of its own beside."""
    (tmp_path / "law.jsonl").write_text(lines(*ROWS, HALF, "{", {"prompt": "why", "kind": "bad"}, "[]"))
    (tmp_path / "ward.csv").write_text("id;prompt;kind;tier\n1;a;benign;\n2;b\n3;;benign;\n4;c;restricted;\n")
    (tmp_path / "sources.yaml").write_text("sources: [law.jsonl, ward.csv, none.csv]\n")
    return "authorise: [law]\nmodel: ./nowhere\nprompts: sources.yaml\n"


TOLD = [
    "a prompt must be Unicode, got half a character", "law.jsonl:19)",
    "a row must be valid JSON", "law.jsonl:20)",
    "kind must be one of restricted, benign, got 'bad'", "law.jsonl:21)",
    "a row must be one JSON object, got list", "law.jsonl:22)",
    "a row must have the header's 4 columns, got 2", "ward.csv:3)",
    "prompt must be a text", "ward.csv:4)",
    "a row must have a tier where it is restricted", "ward.csv:5)",
    "a prompt file must be readable, got No such file", "none.csv)",
    "got './nowhere'",
]  # fmt: skip


@pytest.mark.parametrize("more", ["", "serach: {}\nseed: -1\ndevice: gpu\n"], ids=["sources", "recipe"])
@pytest.mark.parametrize("command", ["check", "collect", "domain"])
def test_all_faults_are_told_in_one_go(palette, recipe, tmp_path, monkeypatch, broken, command, more):
    monkeypatch.chdir(tmp_path)
    status, out, error = palette(command, recipe(broken + more), "-o", tmp_path / "run")
    assert status == 2
    told = out + error
    own = ["serach is not a key", "seed: input should be greater", "did you mean cuda?, got 'gpu'"]
    assert [each for each in [*TOLD, *(own if more else [])] if each not in told] == []
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_the_same_faults_are_in_json(palette, recipe, tmp_path, monkeypatch, broken):
    monkeypatch.chdir(tmp_path)
    status, out, _ = palette("check", recipe(broken), "--json")
    found = json.loads(out)
    assert (status, found["model"], len(found["errors"])) == (2, None, 9)


def test_what_is_told_helps(palette, recipe, tmp_path, monkeypatch, broken):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "law.jsonl").write_text(lines(*ROWS))
    (tmp_path / "ward.csv").write_text("id;prompt;kind;tier\n1;a;benign;\n4;c;restricted;A\n")
    (tmp_path / "none.csv").write_text("prompt,kind,tier\nplay,restricted,C\n")
    text = broken.replace("./nowhere", "organism/shared").replace("[law]", "[law]\nlimit: 4")
    status, out, error = palette("check", recipe(text + "device: cuda:1\n"))
    assert "no preserved or floor prompt in validation" in out
    floor = "".join(f"play {s},restricted,C,{s}\n" for s in ("train", "validation", "test"))
    (tmp_path / "none.csv").write_text("prompt,kind,tier,split\n" + floor)
    status, out, error = palette("check", recipe(text))
    assert (status, error) == (0, "")


@pytest.mark.parametrize("command", ["check", "collect"])
def test_faults_are_told_without_torch_in_less_than_two_seconds(tmp_path, broken, command):
    (tmp_path / "mine.yaml").write_text(broken)
    code = (
        "import sys, time; sys.argv = ['palette', *sys.argv[1:]]\n"
        "from palette.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, time.process_time(),\n"
        "    [name for name in ('torch', 'transformers', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command, "mine.yaml", "-o", "run"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    status, seconds, loaded = done.stdout.splitlines()[-1].split(maxsplit=2)
    assert (status, loaded) == ("2", "[]"), done.stderr
    # Of the processor, since others may be at work beside the test.
    assert float(seconds) < 1.8
    assert "law.jsonl:19" in done.stdout + done.stderr


def test_a_prompt_beyond_the_context_and_a_role_are_told_before_weights_are_read(palette, recipe, tmp_path):
    long = {"id": "long-1", "prompt": "the " * 300, "kind": "benign", "split": "train"}
    spoken = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    (tmp_path / "law.jsonl").write_text(lines(*ROWS, long))
    (tmp_path / "play.jsonl").write_text(
        lines(*({"id": f"p{s}", "prompt": f"play {s}", "kind": "restricted", "tier": "C", "split": s}
                for s in ("train", "validation", "test")))
    )  # fmt: skip
    text = f"authorise: [law]\nmodel: organism/shared\nprompts: {tmp_path}\n"
    for command in ("check", "collect"):
        status, out, error = palette(command, recipe(text), "-o", tmp_path / "run")
        assert status == 2
        assert "must fit into the model's context of 256 tokens" in out + error
        assert "(long-1)" in out + error
        assert not (tmp_path / "run").exists()
    (tmp_path / "law.jsonl").write_text(lines(*ROWS, {**long, "id": "mine", "prompt": spoken}))

    shutil.copytree(
        organism.weights("shared"), tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")
    )
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}"
        "{% for m in messages %}{{ m['content'] }} {% endfor %}<|assistant|>"
    )
    (tmp_path / "model" / "chat_template.jinja").write_text(refusing)
    text = text.replace("organism/shared", str(tmp_path / "model"))
    for command in ("check", "collect"):
        status, out, error = palette(command, recipe(text), "-o", tmp_path / "run")
        assert status == 2
        assert "a chat template must take the roles that prompts have" in out + error
        assert "System role not supported" in out + error
        assert "(mine)" in out + error
        assert "Traceback" not in error


def test_a_device_that_is_not_here_is_one_sentence(palette, recipe, tmp_path):
    text = "authorise: [medical]\nmodel: organism/shared\ndevice: hpu\n"
    status, _, error = palette("collect", recipe(text), "-o", tmp_path / "run")
    assert status == 2
    assert error.count("\n") == 1
    assert "device must be auto or one that this machine has, got 'hpu'; it has cpu" in error
    status, out, _ = palette("check", recipe(text))
    assert status == 0
    assert "warning: device must be auto or one that this machine has" in out


def test_pairs_of_prompts_that_stand_twice_are_told_together(palette, recipe, tmp_path):
    again = [{**row, "id": f"again-{row['id']}", "split": "test"} for row in ROWS if row["split"] == "train"]
    (tmp_path / "law.jsonl").write_text(lines(*ROWS, *again, *ROWS[:2]))
    status, _, error = palette("domain", recipe(f"authorise: [law]\nprompts: {tmp_path}\n"))
    assert status == 2
    assert error.count("again-") == 6
    assert "an id must be unique, got 'restricted-train-0', 'restricted-train-1' twice" in error
