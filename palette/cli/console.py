"""What commands print: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


@dataclass(frozen=True)
class Printer:
    """How one command speaks: ``as_json`` prints the result alone, ``quiet`` prints nothing."""

    as_json: bool = False
    quiet: bool = False

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar on standard error, gone when it is done or where there is no terminal."""
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        if self.quiet or not console.is_terminal:
            # Not a disabled bar: older versions of rich end that with an empty line.
            yield lambda count: None
            return
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)

    def result(self, value: Any, show: Callable[[Console], None]) -> None:
        """Prints the result: as JSON and nothing else, or for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=2) + "\n")
        elif not self.quiet:
            show(Console())

    def note(self, text: str) -> None:
        """Prints a line for people on standard error."""
        if not (self.quiet or self.as_json):
            Console(stderr=True, highlight=False).print(text)


def show_report(report: dict[str, Any], folder: object) -> Callable[[Console], None]:
    """Prints a report: the verdict, then refusal and correctness before and after."""

    def show(console: Console) -> None:
        gate = report["gate"]
        failed = [rule for rule in gate["rules"] if not rule["passed"]]
        verdict = "[green]gate passed[/]" if gate["passed"] else "[red]gate failed[/]"
        console.print(
            f"[bold]{report['model']['name']}[/] authorised for "
            f"[bold]{', '.join(report['authorised'])}[/]: {verdict} on the {report['split']} split"
        )
        for rule in failed:
            console.print(f"  [red]{rule['name']}[/]: {rule['reason']}", highlight=False)
        table = Table("domain", "prompts", "refused before", "after", "correct before", "after")
        for domain, kinds in report["adapted"]["domains"].items():
            for kind, after in kinds.items():
                before = report["base"]["domains"][domain][kind]
                opened = kind == "restricted" and domain in report["authorised"]
                table.add_row(
                    domain,
                    f"{kind} ({after['refusal']['n']})",
                    *(_share(side, "refusal") for side in (before, after)),
                    *(_share(side, "correct") for side in (before, after)),
                    style="bold" if opened else "",
                )
        console.print(table)
        moved = report["adapted"]["divergence"]["multi_token"]
        console.print(f"benign divergence: {moved:.4f} nats a token" if moved is not None else "")
        console.print(f"written to {folder}", soft_wrap=True, highlight=False)

    return show


def show_merge(result: dict[str, Any]) -> Callable[[Console], None]:
    """Prints a merge: what went in, the rank, the retained energy, and what to do next."""

    def show(console: Console) -> None:
        for one, weight in zip(result["inputs"], result["weights"], strict=True):
            console.print(f"  {weight:g} × {one['path']}", highlight=False)
        console.print(
            f"[bold]{result['method']}[/]: rank {result['rank']} (written as "
            f"{result['written_rank']}), retained energy {result['retained_energy']:.6f}",
            highlight=False,
        )
        console.print(f"written to {result['output']}", soft_wrap=True, highlight=False)
        opened = ",".join(result["domains"]) or "DOMAINS"
        console.print(
            "Not certified: a merge whose parents passed the gate can fail it. Run\n"
            f"  palette evaluate --model MODEL --prompts PROMPTS --authorise {opened} "
            f"--adapter {result['output']}",
            soft_wrap=True,
            highlight=False,
        )

    return show


def show_inspection(result: dict[str, Any]) -> Callable[[Console], None]:
    """Prints what adapters are, and the cosines between them."""

    def show(console: Console) -> None:
        table = Table("", "adapter", "domains", "backbone", "rank", "modules", "‖ΔW‖")
        for index, one in enumerate(result["adapters"], start=1):
            table.add_row(
                str(index),
                one["path"],
                ", ".join(one["domains"]) or "unknown",
                one["backbone"]["name"] or "unknown",
                str(one["rank"]),
                f"{len(one['modules'])} ({', '.join(one['targets'])})",
                f"{one['norm']:.4g}",
            )
        console.print(table)
        if "cosines" in result:
            numbers = [str(i + 1) for i in range(len(result["cosines"]))]
            grid = Table("cosine of ΔW", *numbers)
            for number, row in zip(numbers, result["cosines"], strict=True):
                grid.add_row(number, *("–" if c is None else f"{c:+.3f}" for c in row))
            console.print(grid)

    return show


def _share(cell: dict[str, Any], key: str) -> str:
    if key not in cell:
        return ""
    rate = cell[key]
    return f"{rate['rate']:6.1%} [dim]{rate['low']:.0%}–{rate['high']:.0%}[/]"
