"""What every command shares: a few options, declared once here, and the call in which they reach it."""

from __future__ import annotations

import functools
import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from palette.processes import Progress, silent

GATE_FAILED, INTERRUPTED = 3, 130

OPTIONS: dict[str, tuple[Any, object]] = {
    "output": (Annotated[Path | None, typer.Option("--output", "-o", help="the output folder")], None),
    "overrides": (
        Annotated[list[str] | None, typer.Option("--set", help="a recipe key, as key=value; repeatable")],
        None,
    ),
    "as_json": (
        Annotated[bool, typer.Option("--json", help="print the result as JSON, nothing else")],
        False,
    ),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="print nothing but errors")], False),
    "wide": (Annotated[bool, typer.Option("--wide", help="a table's row on one line, however long")], False),
}
"""The options of every command: their types with their names and help, and their defaults."""


@dataclass(frozen=True)
class Call:
    """One call of a command: where it writes, what is laid over its recipe, and how it speaks."""

    output: Path | None = None
    overrides: tuple[str, ...] = ()
    as_json: bool = False
    quiet: bool = False
    wide: bool = False

    @cached_property
    def progress(self) -> Progress:
        """How a long piece of work says how far it is: on standard error, and in the log alone if quiet."""
        from palette.cli.console import logged, progress_shown

        return logged(silent if self.quiet else progress_shown())

    def result(self, value: Any, template: str, **more: object) -> None:
        """Prints a result on standard output: as JSON and nothing else, or as its template words it."""
        if self.as_json:
            plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
            sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        elif not self.quiet:
            from palette.cli.console import show

            show(template, self.wide, result=value, **more)

    def end(self, passed: bool) -> None:
        """Returns nothing; ends the command with status 3 if the gate failed."""
        if not passed:
            raise typer.Exit(GATE_FAILED)


def interrupted(stop: KeyboardInterrupt) -> int:
    """The exit status of an interrupted command, which says what is kept and how to go on."""
    kept = "".join(f"{note}; " for note in getattr(stop, "__notes__", ()))
    again = shlex.join(["palette", *sys.argv[1:]])
    print(f"palette: interrupted; {kept}the same command goes on where it was: {again}", file=sys.stderr)
    return INTERRUPTED


def command(*shared: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command of a function whose first parameter is its call.

    ``shared`` names the shared options that it takes; ``--json``, ``--quiet`` and ``--wide`` every one has.
    """
    names = [name for name in OPTIONS if name in shared or name in ("as_json", "quiet", "wide")]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        _, *parameters = inspect.signature(function, eval_str=True).parameters.values()
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in OPTIONS.items()
            if name in names
        ]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in names}
            values["overrides"] = tuple(values.get("overrides") or ())
            # Of several processes that run one command, the first one speaks.
            if os.environ.get("RANK", "0") != "0":
                values |= {"as_json": False, "quiet": True}
            try:
                function(Call(**values), **given)
            except KeyboardInterrupt as stop:
                # Here, since the parser's library would end without a word.
                raise typer.Exit(interrupted(stop)) from stop

        named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        run.__signature__ = inspect.Signature([*named, *options])  # type: ignore[attr-defined]
        return run

    return decorate


RECIPE = ("output", "overrides")
"""The shared options of a command that works by a recipe."""


def listed(text: str) -> list[str]:
    """The parts of a text that is joined by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
