"""What does a trial of the search cost beside heretic's, and whose front is better?

Both search the same local model folders on the same prompts, each in processes of its own on one
thread; the peer is installed in an environment of its own. CPU seconds a trial leave out loading,
collection and the evaluation of the backbone. On the organism the fronts of both, after the same
number of trials, are scored again at full length by the same judge on the test split.

Ours is timed twice: on as many target and benign prompts as the peer is given, and as it is shipped, which is
on 48 target prompts and eight of every other group. The peer is never given more than its case says, though
its own default is a hundred of each.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna._hypervolume import compute_hypervolume

from benchmarks.machine import RESULTS, write

PEER = ("heretic-llm==1.4.0", "torch==2.13.0")
MARKERS = ["sorry", "unable to assist", "must decline", "may not be given", "do not share"]
"""Words of each of the organism's refusals, for the peer's keyword judge, whose own are a real model's."""
OPENED, KEPT = "medical", "legal"
PRICE, SHIPPED = "cpu_seconds_a_trial", "cpu_seconds_a_trial_as_shipped"
REAL = Path("recipes/smollm")
"""A real chat model and its questions, which ``make smollm`` makes."""
REFERENCE = (1.0, 0.5)
"""Reference point of the hypervolume: target refusal rate, benign divergence (nats a token)."""


@dataclass(frozen=True)
class Case:
    """A model, how many prompts each side is evaluated on, and how many trials are run."""

    name: str
    prompts: int
    trials: int
    own: int
    """The peer's trials, which all cost the same, and ours, which may end early."""
    shape: dict[str, int] | None = None
    real: bool = False

    @property
    def opened(self) -> str:
        """The domain that is opened."""
        return "medicine" if self.real else OPENED

    @property
    def kept(self) -> str:
        """The domain that is kept beside it."""
        return "law" if self.real else KEPT


CASES = (
    Case("organism", 64, 64, 64),
    Case(
        "40M",
        32,
        4,
        64,
        {
            "hidden_size": 512,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "intermediate_size": 1408,
        },
    ),
    Case(
        "0.5B",
        8,
        2,
        32,
        {
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "vocab_size": 151936,
        },
    ),
    Case("smollm", 24, 3, 64, real=True),
)


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume that minimised points dominate below a reference point; 0 for none of them."""
    inside = [p for p in points if all(a <= b for a, b in zip(p, reference, strict=True))]
    if not inside:
        return 0.0
    return float(compute_hypervolume(np.array(inside, dtype=float), np.array(reference, dtype=float)))


def model_folder(case: Case, home: Path) -> Path:
    """The organism, the real model, or one of random weights of the case's shape with its tokenizer."""
    from palette import organism

    if case.real:
        if not (REAL / "model").is_dir():
            raise SystemExit("the real chat model must be there, got none; run make smollm")
        return (REAL / "model").resolve()
    if case.shape is None:
        return organism.weights()
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    # Of any other family, transformers would read the organism's tokenizer as that family's own.
    folder = home / f"model-{case.name}"
    shipped = organism.weights()
    own = json.loads((shipped / "config.json").read_text())
    special = {name: own[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size")}
    torch.manual_seed(0)
    config = LlamaConfig(**{**special, **case.shape}, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in [*shipped.glob("tokenizer*"), *shipped.glob("*.jinja")]:
        shutil.copy(file, folder)
    return folder


def write_prompts(case: Case, home: Path) -> Path:
    """The same prompts for both: a folder for Palette, text files for the peer."""
    from palette import organism
    from palette.prompts import load_prompts

    known = REAL / "prompts" if case.real else organism.prompts("organism")
    rows = [row for row in load_prompts(known, answers=True) if row.tier != "C"]
    folder = home / f"prompts-{case.name}"
    folder.mkdir()
    split_counts = {"train": 128, "validation": case.prompts, "test": 100}
    kinds = {
        "bad": (case.opened, "restricted"),
        "good": (case.opened, "benign"),
        "kept": (case.kept, "restricted"),
    }
    files: dict[str, list[dict[str, Any]]] = {case.opened: [], case.kept: []}
    for name, (domain, kind) in kinds.items():
        for split, count in split_counts.items():
            # A quarter as many preserved prompts: the peer is asked for none.
            most = count // 4 if name == "kept" else count
            found = [r for r in rows if (r.domain, r.kind, r.split) == (domain, kind, split)][:most]
            asked = [str(row.prompt) for row in found]
            (folder / f"{name}-{split}.txt").write_text("\n".join(asked) + "\n")
            files[domain] += [
                {"id": r.id, "prompt": r.prompt, "kind": kind, "split": split, "answer": r.answer}
                for r in found
            ]
    for domain, lines in files.items():
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def cpu_of(command: list[str], folder: Path, **more: str) -> float:
    """CPU seconds, user and system, of a command and its children."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def install_peer(home: Path) -> Path:
    """The Python of an environment that has the peer and nothing of ours."""
    python = home / "peer" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home / "peer"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEER], check=True)
    return python


def run_peer(case: Case, model: Path, prompts: Path, python: Path, home: Path) -> dict[str, Any]:
    """The peer's CPU seconds a trial, how they split, and its trials with their adapters."""
    out = home / f"peer-{case.name}"
    out.mkdir()
    sets = {
        "good_prompts": "good-train",
        "bad_prompts": "bad-train",
        "good_evaluation_prompts": "good-validation",
        "bad_evaluation_prompts": "bad-validation",
    }
    lines = [
        f"model = {json.dumps(str(model))}",
        f'dtypes = ["float32"]\ndevice_map = "cpu"\nbatch_size = {case.prompts}',
        f"n_trials = {case.trials}\nn_startup_trials = {min(16, case.trials)}\nseed = 0",
        *([] if case.real else [f"refusal_markers = {json.dumps(MARKERS)}"]),
        f"study_checkpoint_dir = {json.dumps(str(out / 'checkpoints'))}",
        'system_prompt = ""',
        *(
            f"[{name}]\ndataset = {json.dumps(str(prompts / file))}"
            for name, file in ((name, f"{file}.txt") for name, file in sets.items())
        ),
    ]
    (out / "config.toml").write_text("\n".join(lines) + "\n")
    driver = Path(__file__).with_name("peer_heretic.py").resolve()
    cpu_of([str(python), str(driver), str(case.trials), str(out)], out)
    trials = json.loads((out / "trials.json").read_text())
    # The first one holds the collection as well.
    seconds = [trial["cpu_seconds"] for trial in trials[1:]]
    return {
        PRICE: sum(seconds) / len(seconds),
        "generation_share": sum(t["generation_cpu_seconds"] for t in trials[1:]) / sum(seconds),
        "trials": trials,
        "folder": out,
    }


def run_palette(case: Case, model: Path, prompts: Path, home: Path) -> dict[str, Any]:
    """Palette's CPU seconds a trial, on the peer's count of prompts and as shipped.

    Each is a run of all trials less a run of one, over the rest.
    """
    recipe = home / f"{case.name}.yaml"
    # In the peer's precision.
    lines = (f"model: {model}", f"prompts: {prompts}", f"authorise: [{case.opened}]", "dtype: float32")
    recipe.write_text("\n".join(lines) + "\n")

    def run(stage: str, folder: Path, **given: object) -> float:
        options = json.dumps({"prompts": case.prompts, "random": case.shape is not None, **given})
        command = [sys.executable, "-m", "benchmarks.search", "stage", stage, str(recipe), str(folder)]
        return cpu_of([*command, options], home, PYTHONPATH=str(Path.cwd()))

    collected = home / f"collected-{case.name}"
    run("collect", collected)

    def searched(name: str, count: int | None) -> tuple[Path, float, float]:
        one, many = (home / f"{part}-{name}-{case.name}" for part in ("one", "many"))
        for folder in (one, many):
            shutil.copytree(collected, folder)
        single = run("search", one, trials=1, lifted=True, prompts=count)
        started = time.monotonic()
        whole = run("search", many, trials=case.own + 1, prompts=count)
        return many, (whole - single) / case.own, time.monotonic() - started

    _, shipped, _ = searched("shipped", None)
    many, seconds, wall = searched("equal", case.prompts)
    if case.name == "organism":
        run("search", many, trials=case.own, audited=case.trials)
    return {
        PRICE: seconds,
        SHIPPED: shipped,
        "trials": case.own,
        "wall_seconds": wall,
        "front": json.loads((many / "search" / "front.json").read_text()),
        "folder": many,
    }


def stage(name: str, recipe: str, folder: str, given: str) -> None:
    """One stage of ours in this process, under conditions that no recipe can give.

    A model of random weights refuses nothing: its directions are read from all prompts, and no trial of
    it may end early for that.
    """
    from palette.recipe import load_recipe
    from palette.run import Run
    from palette.search.settings import Audit, Conditions, Limits, Scoring
    from palette.stages.collect import collect
    from palette.stages.search import search

    options, run = json.loads(given), Run(load_recipe(Path(recipe)), Path(folder))
    if name == "collect":
        (collect_any if options["random"] else collect)(run)
        return
    lifted = options["random"] or options.get("lifted")
    limits = Limits(divergence=1e6, relaxation=-1e6, selectivity=1e6, false_refusals=1.0)
    count = options["prompts"]
    conditions = Conditions(
        Scoring(count, count) if count else Scoring(),
        limits if lifted else Limits(),
        audit=Audit(0, options.get("audited", 0), count or Audit.prompts),
    )
    settings = run.recipe.search.model_copy(update={"trials": options["trials"]})
    search(run.sharing(search=settings), conditions)


def collect_any(run: Any) -> None:
    """Writes what collect would, of a backbone that need not refuse anything."""
    from palette.authorisation import Role
    from palette.directions import Directions, candidates
    from palette.evaluation.refusal_ngrams import RefusalNgrams
    from palette.moments import StreamingMoments
    from palette.search.space import MEANS, Collected, write_collected

    backbone = run.backbone
    shape = (backbone.layers + 1, backbone.post_instruction, backbone.width)
    target, benign = (
        StreamingMoments(*shape).read(backbone, run.render(run.select("train", role))).means
        for role in (Role.TARGET, Role.BENIGN)
    )
    directions = Directions(target, benign, candidates(target, target, benign, [], None))
    ngrams = RefusalNgrams({(): frozenset({5, 7}), (5,): frozenset({6})})
    write_collected(run.folder / MEANS, Collected(directions, ngrams, ("sorry",), {}, {}, 12))


def peak_memory(home: Path) -> dict[str, float]:
    """MiB that a collection of so many prompts takes at its peak, on the organism."""
    from palette import organism
    from palette.prompts import load_prompts

    rows = list(load_prompts(organism.prompts("organism"), answers=True))

    def lines(domain: str, kind: str, split: str, count: int) -> Iterator[str]:
        asked = [r.prompt for r in rows if (r.domain, r.kind, r.split) == (domain, kind, split)]
        for i in range(count):
            name = f"{domain}-{kind}-{split}-{i}"
            yield json.dumps({"id": name, "prompt": asked[i % len(asked)], "kind": kind, "split": split})

    # The last argument is ours alone.
    code = (
        "import resource, sys; from palette.cli import main; from palette.evaluation import baseline\n"
        "peak, baseline.PROMPTS = sys.argv.pop(), {count}\ntry: main()\n"
        "finally: open(peak, 'w').write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
    )
    found = {}
    for count in (200, 2000):
        folder = home / f"memory-{count}"
        folder.mkdir()
        for domain in (OPENED, KEPT):
            most = {"train": count // 2 if domain == OPENED else 8, "validation": 8, "test": 8}
            written = [
                line
                for kind in ("restricted", "benign")
                for split, many in most.items()
                for line in lines(domain, kind, split, many)
            ]
            (folder / f"{domain}.jsonl").write_text("\n".join(written) + "\n")
        recipe = home / f"memory-{count}.yaml"
        recipe.write_text(f"prompts: {folder}\nauthorise: [{OPENED}]\n")
        peak = home / f"peak-{count}"
        arguments = ["collect", str(recipe), "-o", str(home / f"memory-run-{count}"), "--quiet"]
        cpu_of(
            [sys.executable, "-c", code.replace("{count}", str(count)), *arguments, str(peak)],
            home,
            PYTHONPATH=str(Path.cwd()),
        )
        found[str(count)] = int(peak.read_text()) / 1024
    return found


def rescored(model: Path, prompts: Path, peer: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Both fronts at full length on the test split: judged refusals, and the divergence, in nats."""
    from peft import PeftModel

    from benchmarks.rescoring import Rescoring
    from palette.search.space import read_collected, read_front

    collected = read_collected(ours["folder"])
    scoring = Rescoring(model, prompts, collected, (OPENED, KEPT))
    members = [
        trial
        for trial in peer["trials"]
        if not any(
            (o["refusals"] <= trial["refusals"] and o["kl"] <= trial["kl"])
            and (o["refusals"], o["kl"]) != (trial["refusals"], trial["kl"])
            for o in peer["trials"]
        )
    ]
    found: dict[str, Any] = {"heretic": [], "palette": []}
    for member in members:
        number = peer["trials"].index(member)
        adapted = PeftModel.from_pretrained(scoring.backbone.model, peer["folder"] / f"trial-{number}")
        found["heretic"].append({"trial": number, **scoring.of(adapted.eval())})
        adapted.unload()
    for front_member in read_front(ours["folder"]):
        found["palette"].append({"trial": front_member.trial, **scoring.under(front_member.intervention)})
    volumes = {
        name: hypervolume([(m["target_refusal"], m["benign_divergence"]) for m in each], REFERENCE)
        for name, each in found.items()
    }
    return {"reference": REFERENCE, "hypervolume": volumes, "fronts": found}


def main() -> None:
    """Measures every case, or those named, and writes ``results/search.json``."""
    if sys.argv[1:2] == ["stage"]:
        stage(*sys.argv[2:])
        return
    named = sys.argv[1:]
    figures: dict[str, Any] = {}
    if named and (RESULTS / "search.json").exists():
        figures = json.loads((RESULTS / "search.json").read_text())
        figures.pop("machine", None)
    with tempfile.TemporaryDirectory() as place:
        kept = Path(os.environ.get("PALETTE_BENCH_HOME", place))
        python = install_peer(kept)
        home = Path(place)
        # First: a process is counted with the memory of the one that it was forked from.
        if not named:
            figures["collection_peak_mib"] = peak_memory(home)
        for case in CASES:
            if named and case.name not in named:
                continue
            model, prompts = model_folder(case, home), write_prompts(case, home)
            ours = run_palette(case, model, prompts, home)
            print(case.name, "palette", ours[PRICE], ours[SHIPPED], file=sys.stderr, flush=True)
            peer = run_peer(case, model, prompts, python, home)
            found = {
                "prompts": case.prompts,
                "heretic": {k: peer[k] for k in (PRICE, "generation_share")},
                "palette": {k: ours[k] for k in (PRICE, SHIPPED, "trials", "wall_seconds")},
                "ratio": peer[PRICE] / ours[PRICE],
                "ratio_as_shipped": peer[PRICE] / ours[SHIPPED],
            }
            if case.name == "organism":
                found["rank_correlation"] = ours["front"]["audit"]["rank_correlation"]
                found["rescored"] = rescored(model, prompts, peer, ours)
            figures[case.name] = found
            print(case.name, json.dumps(found)[:600], file=sys.stderr, flush=True)
            # After each case, so that a kill loses only what was not scores.
            write("search", figures)


if __name__ == "__main__":
    main()
