"""Which way of opening domains answers, keeps everything else, and composes?

The control table: every internalisation method beside the backbone, the searched ablation on every
prompt, conditional steering at inference, supervised fine-tuning, and the oracle gate; for every
domain, all pairs, a stated sample of triples, and all domains at once by merging alone, on the
organism's test split. The variants are measured in single domains with the default method.

    PALETTE_BENCH_HOME=~/bench python -m benchmarks.control [METHOD ...]

What was trained is kept in that folder, so that a benchmark that was cut off goes on. With methods named,
these alone are measured anew (``inference`` is all that trains nothing); the other rows stay.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.examination import BESIDE, Domain, Examination, searched
from benchmarks.latency import latencies
from benchmarks.machine import RESULTS, write
from benchmarks.systems import Condition, Edits, System, adapted, bare, conditional, everywhere, oracle
from benchmarks.table import markdown, plot
from palette.adapters.lora import Adapter

DOMAINS = ("chemistry", "cybersecurity", "energy", "finance", "legal", "medical")
PAIRS = tuple(combinations(DOMAINS, 2))
TRIPLES = tuple(combinations(DOMAINS, 3))[::5]
"""Every fifth of the twenty, in alphabetical order."""
COMBINATIONS = (*((domain,) for domain in DOMAINS), *PAIRS, *TRIPLES, DOMAINS)
INFERENCE = ("backbone", "ablation everywhere", "conditional steering", "oracle gate")
LEARNED = ("distil", BESIDE, "activation", "palette", "sft", "closed_form")
VARIANTS = {name: ("finance", "legal", "medical") for name in ("organism/categorical", "organism/redundant")}


@dataclass
class Table:
    """The rows so far, and what stands beside them."""

    beside: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    stale: list[dict[str, Any]] = field(default_factory=list)
    """Rows measured before, which stay until they are measured anew."""

    def add(self, model: str, method: str, figures: Mapping[str, Any], seconds: float | None = None) -> None:
        """Appends a row, and shows it."""
        row = {"model": model, "method": method, **figures, "seconds": seconds}
        self.stale = [one for one in self.stale if place(one) != place(row)]
        self.rows.append(row)
        print(row, flush=True)

    def save(self) -> None:
        """Writes the table as JSON, Markdown and a picture."""
        rows = sorted([*self.stale, *self.rows], key=place)
        write("control", {**self.beside, "rows": rows})
        (RESULTS / "control.md").write_text(markdown(rows))
        plot(rows, RESULTS / "control.svg")


def place(row: Mapping[str, Any]) -> tuple[int, int, str, int]:
    """Where a row stands: by model, number of domains, domains, and method."""
    opened = row["authorised"]
    known = [*INFERENCE, *LEARNED]
    method = known.index(row["method"]) if row["method"] in known else len(known)
    return (row["model"] != "organism", len(opened), f"{row['model']} {','.join(opened)}", method)


def at_inference(
    examination: Examination, edits: Edits, conditions: Mapping[str, Condition]
) -> Iterator[tuple[str, System]]:
    """The systems that train nothing, for the domains of the edits."""
    backbone, authorisation = examination.backbone, examination.authorisation(tuple(edits))
    yield "backbone", bare()
    yield "ablation everywhere", everywhere(backbone, edits)
    yield "conditional steering", conditional(backbone, edits, conditions)
    yield "oracle gate", oracle(backbone, edits, authorisation)


def learn(
    methods: Sequence[str], domains: Mapping[str, Domain]
) -> tuple[dict[str, dict[str, Adapter]], dict[tuple[str, str], float]]:
    """Every method's adapters by domain, and the seconds that each took, lectures included."""
    adapters: dict[str, dict[str, Adapter]] = {method: {} for method in methods}
    seconds: dict[tuple[str, str], float] = {}
    for method in methods:
        for name, domain in domains.items():
            before = tuple(adapters[method].values()) if method == BESIDE else ()
            adapters[method][name], seconds[method, name] = domain.learn(method, before)
            print(method, name, round(seconds[method, name], 1), flush=True)
    return adapters, seconds


def compose(table: Table, methods: Sequence[str], domains: Mapping[str, Domain]) -> None:
    """The organism's rows: every combination of domains by every method."""
    examination = Examination(domains["medical"])
    adapters, seconds = learn([name for name in methods if name in LEARNED], domains)
    conditions = {name: domain.condition() for name, domain in domains.items()}
    backbone = examination.backbone
    table.beside.setdefault("known", {})["organism"] = examination.known
    if "distil" in adapters:
        medical = adapters["distil"]["medical"]
        asked, edit = examination.prompts[::200], domains["medical"].edit
        numbers = sum(m.lora_A.numel() + m.lora_B.numel() for m in medical.modules.values())
        table.beside["adapter_share"] = round(numbers / backbone.model.num_parameters(), 4)
        table.beside["latency"] = latencies(backbone, medical, edit, conditions["medical"], asked)
    for opened in COMBINATIONS:
        edits = {name: domains[name].edit for name in opened}
        if "inference" in methods:
            for method, system in at_inference(examination, edits, conditions):
                table.add("organism", method, examination.examine(system, opened))
        for method, found in adapters.items():
            if method == "closed_form" and len(opened) > 1:
                continue  # It opens nothing alone.
            system = adapted(backbone, {name: found[name] for name in opened})
            took = seconds[method, opened[0]] if len(opened) == 1 else None
            table.add("organism", method, examination.examine(system, opened), took)
        table.save()
    if "distil" not in adapters:
        return
    whole = adapters["distil"]
    weights = examination.weights(domains["medical"], whole)
    figures = examination.examine(adapted(backbone, whole, weights), DOMAINS)
    table.add("organism", "distil, weights searched", {**figures, "weights": weights})
    table.save()


def main() -> None:
    """Writes results/control.json, control.md and control.svg; rows appear as they are measured."""
    methods = sys.argv[1:] or ("inference", *LEARNED)
    before = RESULTS / "control.json"
    kept = json.loads(before.read_text()) if sys.argv[1:] and before.is_file() else {}
    beside = {key: value for key, value in kept.items() if key not in ("machine", "rows")}
    table = Table(beside, stale=kept.get("rows", []))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ.get("PALETTE_BENCH_HOME", folder)) / "control"
        compose(table, methods, {name: searched("organism", name, home) for name in DOMAINS})
        for model, names in VARIANTS.items() if "distil" in methods else ():
            for name in names:
                domain = searched(model, name, home)
                variant = Examination(domain)
                table.beside["known"][model] = variant.known
                own, took = domain.learn("distil")
                figures = variant.examine(adapted(variant.backbone, {name: own}), (name,))
                table.add(model, "distil", figures, took)
                table.save()


if __name__ == "__main__":
    main()
