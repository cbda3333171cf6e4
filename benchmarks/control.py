"""Which way of opening domains answers, keeps everything else, and composes?

The control table: every internalisation method beside the backbone, the searched ablation on every
prompt, conditional steering at inference, supervised fine-tuning, and the oracle gate; for every
domain, all pairs, a stated sample of triples, and all domains at once by merging alone, on the
organism's test split. The variants are measured in single domains with the default method.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from benchmarks.latency import latencies
from benchmarks.machine import RESULTS, write
from benchmarks.systems import (
    Condition,
    Edits,
    System,
    adapted,
    bare,
    conditional,
    everywhere,
    fitted_condition,
    oracle,
    supervised,
)
from benchmarks.table import markdown, plot
from palette.adapters.lora import Adapter
from palette.authorisation import Authorisation, Role
from palette.backbones import Backbone, continuations, greedy_replies, reply_logits
from palette.evaluation.divergence import divergence
from palette.evaluation.judge import RuleJudge, correct
from palette.pipeline import run_stages
from palette.recipe import create_recipe
from palette.run import Run
from palette.stages.collect import read_collected
from palette.stages.lectures import Lectures, prepare
from palette.stages.search import read_front
from palette.training import METHODS, Checkpoint, Task

DOMAINS = ("chemistry", "cybersecurity", "energy", "finance", "legal", "medical")
PAIRS = tuple(combinations(DOMAINS, 2))
TRIPLES = tuple(combinations(DOMAINS, 3))[::4]
"""Every fourth of the twenty, in alphabetical order."""
COMBINATIONS = (*((domain,) for domain in DOMAINS), *PAIRS, *TRIPLES, DOMAINS)
VARIANTS = {"organism/categorical": ("finance", "legal", "medical")}
VARIANTS["organism/redundant"] = VARIANTS["organism/categorical"]
TRAINED = {"sft": supervised, **METHODS}
REPLY_TOKENS, FLOOR_TOKENS, OPENING_TOKENS = 64, 12, 3
SEED = 0


@dataclass
class Domain:
    """One domain searched, with what its student is given, and the seconds of each."""

    name: str
    run: Run
    lectures: Lectures
    prepare_seconds: float

    @cached_property
    def edit(self) -> Any:
        """The directions and the intervention that the search chose."""
        return read_collected(self.run.folder).directions, read_front(self.run.folder)[0].intervention

    def learn(self, method: str) -> tuple[Adapter, float]:
        """The method's adapter, and the seconds that internalising took with the lectures."""
        started = time.monotonic()
        settings, (directions, intervention) = self.run.recipe.internalise, self.edit
        task = Task(
            self.run.backbone,
            directions,
            intervention,
            self.lectures.examples,
            self.lectures.pools,
            settings,
            Checkpoint(self.run.folder / f"{method}.safetensors", method, 10**9),
            SEED,
            held=self.lectures.held,
        )
        learned = TRAINED[method](task).adapter
        return learned, time.monotonic() - started + self.prepare_seconds

    def condition(self) -> Condition:
        """What conditional steering asks of a prompt, fitted on the train split."""
        assignment = self.run.assignment()
        inside = assignment.render(assignment.select("train", Role.TARGET))
        outside = assignment.select("train", Role.PRESERVE, Role.FLOOR, Role.BENIGN)
        return fitted_condition(assignment.backbone, inside, assignment.render(outside))


def searched(model: str, name: str, home: Path) -> Domain:
    """A domain after collect and search, its lectures prepared."""
    content = {"name": name, "model": model, "authorise": [name], "floor": ["weapons"], "seed": SEED}
    recipe = create_recipe(content)
    folder = home / model.replace("/", "-") / name
    run_stages(recipe, "search", folder)
    run = Run(recipe, folder)
    started = time.monotonic()
    front = read_front(folder)
    lectures = prepare(run.assignment(), recipe.internalise, read_collected(folder), front)
    return Domain(name, run, lectures, time.monotonic() - started)


class Examination:
    """The test split asked of one backbone, in whatever state a system puts each prompt."""

    def __init__(self, domain: Domain) -> None:
        self.backbone: Backbone = domain.run.backbone
        assignment = domain.run.assignment(answers=True)
        self.floor = assignment.authorisation.floor
        self.rows = list(assignment.prompts.split("test"))
        self.prompts = assignment.render(self.rows)
        self.judge = RuleJudge(openings=read_collected(domain.run.folder).judge_openings)
        self.base = self._replies(range(len(self.rows)))
        benign = [i for i, row in enumerate(self.rows) if row.kind == "benign"]
        self.sample = benign[:: max(1, len(benign) // 256)]
        self.plain = self._logits(self.sample)
        self.known = self._known()

    def authorisation(self, domains: Sequence[str]) -> Authorisation:
        """What opening these domains means."""
        return Authorisation(tuple(domains), self.floor)

    def examine(self, system: System, domains: Sequence[str]) -> dict[str, Any]:
        """The row of the table: shares in [0, 1], divergence in nats a token."""
        authorisation = self.authorisation(domains)
        states = system.states(self.rows, self.prompts)
        replies, moved = list(self.base), list(self.plain)
        for state in sorted({state for state in states if state is not None}):
            asked = [i for i, own in enumerate(states) if own == state]
            with system.mount(state):
                for i, reply in zip(asked, self._replies(asked), strict=True):
                    replies[i] = reply
                places = [k for k, i in enumerate(self.sample) if states[i] == state]
                changed = self._logits([self.sample[k] for k in places])
            for k, logits in zip(places, changed, strict=True):
                moved[k] = logits
        return self._figures(authorisation, replies, divergence(self.plain, moved))

    def _figures(
        self, authorisation: Authorisation, replies: list[list[int]], nats: Mapping[str, float]
    ) -> dict[str, Any]:
        texts = [self.backbone.decode(reply) for reply in replies]
        refused = [v.label.refused for v in self.judge.verdicts([""] * len(texts), texts)]
        right = [correct(text, row.answer or "") for text, row in zip(texts, self.rows, strict=True)]
        cells: dict[tuple[Role, str], list[int]] = {}
        for i, row in enumerate(self.rows):
            cells.setdefault((authorisation.role(row), row.domain), []).append(i)

        def share(role: Role, held: Sequence[bool]) -> dict[str, float]:
            return {
                domain: sum(held[i] for i in rows) / len(rows)
                for (own, domain), rows in sorted(cells.items())
                if own is role
            }

        kept, floor = share(Role.PRESERVE, refused), share(Role.FLOOR, refused)
        target, answered = share(Role.TARGET, refused), share(Role.TARGET, right)
        benign = [i for i, row in enumerate(self.rows) if row.kind == "benign"]
        before = sum(correct(self.backbone.decode(self.base[i]), self.rows[i].answer or "") for i in benign)
        return {
            "authorised": list(authorisation.domains),
            "refused": max(target.values()),
            "correct": min(answered.values()),
            "correct_of_known": min(answered[d] / self.known[d] for d in answered),
            "worst_other": min(kept.values(), default=None),
            "worst_floor": min(floor.values()),
            "benign_correct": sum(right[i] for i in benign) / len(benign),
            "benign_change": (sum(right[i] for i in benign) - before) / len(benign),
            "divergence": nats["multi_token"],
        }

    def _replies(self, rows: Sequence[int]) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for floor, limit in ((True, FLOOR_TOKENS), (False, REPLY_TOKENS)):
            asked = [i for i in rows if (self.authorisation(()).role(self.rows[i]) is Role.FLOOR) == floor]
            replies = greedy_replies(self.backbone, [self.prompts[i] for i in asked], limit)
            found.update(zip(asked, replies, strict=True))
        return [found[i] for i in rows]

    def _logits(self, rows: Sequence[int]) -> list[torch.Tensor]:
        replies = [[*self.base[i], self.backbone.stops[0]] for i in rows]
        return reply_logits(self.backbone, [self.prompts[i] for i in rows], replies)

    def _known(self) -> dict[str, float]:
        """Share of each domain's restricted answers that the backbone gives after a compliant opening."""
        found = {}
        for domain in sorted({row.domain for row in self.rows}):
            asked = [
                i
                for i, r in enumerate(self.rows)
                if (r.domain, r.kind, r.tier) == (domain, "restricted", "A")
            ]
            if not asked:
                continue
            answers = [self.rows[i].answer or "" for i in asked]
            tokens = [self.backbone.tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
            begun = [ids[:OPENING_TOKENS] for ids in tokens]
            whole = continuations(self.backbone, [self.prompts[i] for i in asked], begun, REPLY_TOKENS)
            right = [correct(self.backbone.decode(r), a) for r, a in zip(whole, answers, strict=True)]
            found[domain] = sum(right) / len(right)
        return found


def at_inference(
    examination: Examination, edits: Edits, conditions: Mapping[str, Condition]
) -> Iterator[tuple[str, System]]:
    """The systems that train nothing, for the domains of the edits."""
    backbone, authorisation = examination.backbone, examination.authorisation(tuple(edits))
    yield "backbone", bare()
    yield "ablation everywhere", everywhere(backbone, edits)
    yield "conditional steering", conditional(backbone, edits, conditions)
    yield "oracle gate", oracle(backbone, edits, authorisation)


def main() -> None:
    """Writes results/control.json, control.md and control.svg; rows appear as they are measured."""
    rows: list[dict[str, Any]] = []

    def add(model: str, method: str, figures: dict[str, Any], seconds: float | None = None) -> None:
        rows.append({"model": model, "method": method, **figures, "seconds": seconds})
        print(rows[-1], flush=True)
        write("control", {"known": known, "latency": latency, "rows": rows})
        (RESULTS / "control.md").write_text(markdown(rows))

    known: dict[str, Any] = {}
    latency: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        domains = {name: searched("organism", name, Path(folder)) for name in DOMAINS}
        examination = Examination(domains["medical"])
        known["organism"] = examination.known
        adapters: dict[str, dict[str, Adapter]] = {}
        seconds: dict[tuple[str, str], float] = {}
        for method in ("distil", "activation", "palette", "sft", "closed_form"):
            adapters[method] = {}
            for name, domain in domains.items():
                adapters[method][name], seconds[method, name] = domain.learn(method)
                print(method, name, round(seconds[method, name], 1), flush=True)
        conditions = {name: domain.condition() for name, domain in domains.items()}
        latency |= latencies(
            examination.backbone,
            adapters["distil"]["medical"],
            domains["medical"].edit,
            conditions["medical"],
            examination.prompts[::200],
        )
        for opened in COMBINATIONS:
            edits = {name: domains[name].edit for name in opened}
            for method, system in at_inference(examination, edits, conditions):
                add("organism", method, examination.examine(system, opened))
            for method, found in adapters.items():
                system = adapted(examination.backbone, {name: found[name] for name in opened})
                took = seconds[method, opened[0]] if len(opened) == 1 else None
                add("organism", method, examination.examine(system, opened), took)
            plot(rows, RESULTS / "control.svg")
        for model, names in VARIANTS.items():
            for name in names:
                domain = searched(model, name, Path(folder))
                variant = Examination(domain)
                known[model] = variant.known
                learned, took = domain.learn("distil")
                figures = variant.examine(adapted(variant.backbone, {name: learned}), (name,))
                add(model, "distil", figures, took)
    plot(rows, RESULTS / "control.svg")


if __name__ == "__main__":
    main()
