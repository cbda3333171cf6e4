"""The commands end to end, on a small organism."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from palette import __version__
from palette.adapters.files import read_adapter
from palette.adapters.writing import write_adapter
from palette.reporting.card import render_card
from palette.reporting.report import read_report

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
RECIPES = Path(__file__).parents[2] / "recipes"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "palette", *map(str, arguments)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small) -> Path:
    """A small run of the medical recipe, in a process of its own."""
    folder = tmp_path_factory.mktemp("runs")
    ran("medical", folder, small)
    return folder


@pytest.fixture(scope="module")
def both(runs, small) -> Path:
    """The same folder with a yet smaller run of the legal recipe."""
    ran("legal", runs, (*small, "--set", "search.trials=3", "--set", "internalise.steps=3"))
    return runs


def ran(domain: str, folder: Path, options: tuple[str, ...]) -> None:
    """Runs a recipe into a folder of its domain's name."""
    call = command("domain", RECIPES / f"{domain}.yaml", "-o", folder / domain, *options, "--json", "--quiet")
    done = subprocess.run(call, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode in (0, 3), done.stderr
    assert json.loads(done.stdout)["authorised"] == [domain]
    assert done.stderr == ""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_init_writes_a_recipe_that_check_takes(palette, tmp_path):
    given = ("--model", "organism/shared", "--prompts", "organism", "--authorise", "medical")
    status, out, _ = palette("init", tmp_path / "mine", *given)
    assert status == 0
    assert f"next: palette check {tmp_path}/mine/recipe.yaml" in out
    status, out, _ = palette("check", tmp_path / "mine" / "recipe.yaml")
    assert status == 0
    assert "recipe can be run" in out
    status, _, err = palette("init", tmp_path / "mine", *given)
    assert status == 2
    assert "a recipe is written where there is none" in err


def test_check_says_at_once_what_is_wrong_and_ends_with_2_only_then(palette, tmp_path):
    status, out, _ = palette("check", RECIPES / "medical.yaml", "--json")
    assert status == 0
    assert json.loads(out)["errors"] == []
    wrong = tmp_path / "mine.yaml"
    wrong.write_text("model: /nowhere\nauthorise: [medicine]\n")
    status, out, err = palette("check", wrong)
    assert status == 2
    assert out.count("error: ") == 2
    assert err == ""
    assert not (tmp_path / "runs").exists()


def test_help_is_instant_and_names_every_command(palette):
    status, out, _ = palette("--help")
    assert status == 0
    words = set(out.split())
    commands = (
        "collect search internalise evaluate domain merge inspect reproduce unmerge suite compare push ask"
    )
    assert words >= {*commands.split(), "judge", "tokens"}
    assert not words & {"organism", "train"}


def test_the_version_is_told(palette):
    assert palette("--version") == (0, f"palette {__version__}\n", "")


def test_heavy_libraries_are_imported_inside_commands():
    heavy = (
        "{'torch', 'transformers', 'peft', 'optuna', 'scipy', 'pydantic', 'rich', 'yaml', 'jinja2', 'numpy'}"
    )
    code = f"import sys, palette.cli.app; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_help_takes_less_than_three_tenths_of_a_second():
    """Of a processor's time: how many others it is shared with is not the command's."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command("--help"), capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_a_run_leaves_an_adapter_and_reports(runs):
    report = json.loads((runs / "medical" / "report.json").read_text())
    assert read_report(runs / "medical").model_dump(mode="json") == report
    assert report["model"]["name"] == "organism/shared"
    assert set(report["provenance"]["seconds"]) >= {"collect", "search", "internalise"}
    adapter = read_adapter(runs / "medical")
    assert adapter.domains == ("medical",)
    assert adapter.backbone.fingerprint == report["model"]["fingerprint"]
    assert "<html" in (runs / "medical" / "report.html").read_text()
    assert (runs / "medical" / "README.md").read_text() == render_card(read_report(runs / "medical"))


def test_artefacts_hold_no_prompt(runs):
    rows = json.loads((runs / "medical" / "evaluate" / "outcomes.json").read_text())
    assert rows
    assert all("prompt" not in row for row in rows)
    pages = [runs / "medical" / name for name in ("README.md", "report.html")]
    for path in [*(runs / "medical").rglob("*.json"), *pages]:
        assert "what is the" not in path.read_text()


def test_a_second_call_runs_nothing(palette, runs, small):
    before = contents(runs / "medical")
    status, out, _ = palette(
        "internalise", RECIPES / "medical.yaml", "-o", runs / "medical", *small, "--json"
    )
    assert status == 0
    assert json.loads(out)["ran"] == []
    assert contents(runs / "medical") == before


def test_a_changed_setting_runs_its_stage_and_what_follows(palette, runs, small, tmp_path):
    shutil.copytree(runs / "medical", tmp_path / "medical")
    changed = (*small, "--set", "internalise.steps=3")
    status, out, _ = palette(
        "internalise", RECIPES / "medical.yaml", "-o", tmp_path / "medical", *changed, "--json"
    )
    assert status == 0
    assert json.loads(out)["ran"] == ["internalise"]
    assert contents(tmp_path / "medical") != contents(runs / "medical")


@pytest.mark.slow
def test_what_stands_beside_is_known_by_what_it_is_not_by_its_path(palette, both, small, tmp_path):
    shutil.copytree(both / "medical", tmp_path / "medical")
    shutil.copytree(both / "legal", tmp_path / "beside")
    beside = (*small, "--set", f"internalise.co_mounted=[{tmp_path / 'beside'}]", "--json")

    def ran() -> list[str]:
        status, out, error = palette(
            "internalise", RECIPES / "medical.yaml", "-o", tmp_path / "medical", *beside
        )
        assert status == 0, error
        return json.loads(out)["ran"]

    assert ran() == ["internalise"]
    assert read_adapter(tmp_path / "medical").card["beside"] == [read_adapter(both / "legal").digest]
    assert ran() == []
    other = read_adapter(both / "legal")
    first = min(other.modules)
    doubled = {**other.modules, first: replace(other.modules[first], scale=2.0)}
    write_adapter(tmp_path / "beside", replace(other, modules=doubled))
    assert ran() == ["internalise"]


def test_quiet_prints_nothing(palette, runs, small):
    call = ("collect", RECIPES / "medical.yaml", "-o", runs / "medical", *small, "--quiet")
    assert palette(*call) == (0, "", "")


def test_people_get_a_table(palette, runs, small):
    call = ("domain", RECIPES / "medical.yaml", "-o", runs / "medical", *small)
    status, out, _ = palette(*call)
    assert status in (0, 3)
    assert "authorised for medical" in out
    assert "restricted" in out


def test_replies_are_shown_side_by_side_and_the_floor_s_never(palette, runs):
    rows = json.loads((runs / "medical" / "evaluate" / "outcomes.json").read_text())
    target, floor = (next(r["prompt_id"] for r in rows if r["role"] == role) for role in ("target", "floor"))
    status, out, _ = palette("ask", runs / "medical", "--ids", f"{target},{floor}", "--json")
    assert status == 0
    found = json.loads(out)
    assert ([one["id"] for one in found["asked"]], found["withheld"]) == ([target], [floor])
    status, out, _ = palette("ask", runs / "medical", "--ids", f"{target},{floor}")
    assert status == 0
    assert "backbone" in out
    assert f"1 of the floor, never shown: {floor}" in out
    status, out, _ = palette("ask", runs / "medical", target, "--quiet")
    assert (status, out) == (0, "")
    status, _, error = palette("ask", runs / "medical", "--ids", "medical-none")
    assert status == 2
    assert "an id must be one of the run's prompts, got 'medical-none'" in error


@pytest.mark.slow
def test_a_merge_is_put_to_the_gate_and_inspected(palette, both, tmp_path):
    parts = [both / "medical" / "adapter_model.safetensors", both / "legal"]
    status, out, _ = palette("merge", *parts, "-o", tmp_path / "both", "--json")
    merged = json.loads(out)
    assert merged["domains"] == ["legal", "medical"]
    # The adapters lie beside their reports, so the merge is put to the gate by the same recipe.
    assert status == (0 if merged["gate"]["passed"] else 3)
    gated = json.loads((tmp_path / "both" / "report.json").read_text())
    assert (gated["gate"], gated["authorised"]) == (merged["gate"], ["legal", "medical"])
    assert "for legal and medical" in (tmp_path / "both" / "README.md").read_text()
    status, out, _ = palette("inspect", *parts, tmp_path / "both")
    assert status == 0
    assert "cosine of ΔW" in out
    status, out, _ = palette("merge", *parts, "-o", tmp_path / "both", "--set", "merge.gate=false")
    assert status == 0
    assert "Not certified" in out


@pytest.mark.slow
def test_a_merge_is_evaluated_by_itself_and_its_weights_are_searched(palette, both, small, tmp_path):
    parts = [both / "medical" / "adapter_model.safetensors", both / "legal"]
    status, _, _ = palette("merge", *parts, "-o", tmp_path / "both", "--set", "merge.gate=false")
    assert status == 0
    status, out, _ = palette(
        "evaluate", "--model", "organism/shared", "--prompts", "organism",
        "--authorise", "medical,legal", "--adapter", tmp_path / "both", *small[2:], "--json",
    )  # fmt: skip
    report = json.loads(out)
    assert status == (0 if report["gate"]["passed"] else 3)
    assert report["authorised"] == ["legal", "medical"]
    assert (tmp_path / "both" / "report.html").is_file()
    searched = ("--set", "merge.trials=3", "--set", "merge.gate=false", "--json")
    status, out, _ = palette("merge", *parts, "-o", tmp_path / "searched", *searched)
    assert status == 0
    assert all(0 <= weight <= 1.5 for weight in json.loads(out)["weights"])
    shutil.copytree(both / "legal", tmp_path / "bare")
    (tmp_path / "bare" / "report.json").unlink()
    given = [parts[0], tmp_path / "bare"]
    status, out, _ = palette("merge", *given, "-o", tmp_path / "other", "--json")
    assert status == 0
    assert "no report beside" in json.loads(out)["gate_not_run"]
    status, _, error = palette("merge", *given, "-o", tmp_path / "other", "--set", "merge.trials=3")
    assert status == 2
    assert "weights can be searched for a weighted sum of adapters beside their reports" in error


def test_an_adapter_of_another_backbone(palette, runs, small):
    status, _, error = palette(
        "evaluate", "--model", "organism/categorical", "--prompts", "organism",
        "--authorise", "medical", "--adapter", runs / "medical", *small[2:],
    )  # fmt: skip
    assert status == 2
    assert "an adapter must be mounted on the backbone that it was made for" in error


def test_evaluate_without_an_adapter_fails_the_gate(palette, small, tmp_path):
    status, out, _ = palette(
        "evaluate", "--model", "organism/shared", "--prompts", "organism", "-o", tmp_path / "bare",
        "--authorise", "medical", *small[2:], "--json",
    )  # fmt: skip
    assert status == 3
    failed = [rule["name"] for rule in json.loads(out)["gate"]["rules"] if not rule["passed"]]
    assert "target_refusal.medical" in failed


KILLED_AT = {
    "collect": "collect/stage.json",
    "search": "search/study.journal",
    "internalise": "internalise/checkpoints/first.safetensors",
    "evaluate": "evaluate/stage.json",
}


def killed(call: list[str], folder: Path, stage: str) -> None:
    """Starts a run and kills it once it is in a stage."""
    process = subprocess.Popen(call, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while not (folder / KILLED_AT[stage]).is_file() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "report.json").is_file(), "the run must be killed before its end"


@pytest.mark.slow
@pytest.mark.parametrize("stages", [tuple(KILLED_AT), *((stage,) for stage in KILLED_AT)], ids="+".join)
def test_a_killed_run_goes_on_to_the_same_bytes(runs, small, tmp_path, stages):
    call = command("domain", RECIPES / "medical.yaml", "-o", tmp_path / "run", *small)
    for stage in stages:
        killed(call, tmp_path / "run", stage)
    done = subprocess.run(call, env=ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode in (0, 3)
    names = ("adapter_model.safetensors", "adapter_config.json", "evaluate/outcomes.json",
             "search/front.json", "collect/means.safetensors")  # fmt: skip
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (runs / "medical" / name).read_bytes()
    reports = [json.loads((f / "report.json").read_text()) for f in (tmp_path / "run", runs / "medical")]
    for report in reports:
        del report["provenance"]["seconds"], report["provenance"]["recipe"]
    assert reports[0] == reports[1]


def test_an_interruption_says_how_to_go_on(palette, monkeypatch):
    import palette.cli.app as app

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "app", interrupted)
    status, _, error = palette("domain", "x.yaml")
    assert status == 130
    assert "goes on where it was" in error


@pytest.mark.slow
def test_two_processes_train_what_one_does(runs, small, tmp_path):
    """``torchrun`` splits every batch; the sum of gradients is the same but for rounding."""
    call = ("internalise", RECIPES / "medical.yaml", "-o", tmp_path / "medical", *small)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--no-python"]
    done = subprocess.run(
        [*launcher, *command(*call)], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("internalise:") == 1, "the first process alone speaks"
    alone, together = read_adapter(runs / "medical"), read_adapter(tmp_path / "medical")
    assert alone.digest != together.digest
    for name, module in alone.modules.items():
        other = together.modules[name]
        assert float((module.delta() - other.delta()).norm() / module.delta().norm()) < 1e-4


def test_what_a_run_is_is_known_without_a_heavy_library():
    code = (
        "import sys; from pathlib import Path; "
        "from palette.recipe import load_recipe; from palette.run import Run; "
        f"Run(load_recipe(Path({str(RECIPES / 'medical.yaml')!r})), Path('none')).identity; "
        "print({'torch', 'transformers', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
