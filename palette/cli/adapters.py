"""The commands on adapters alone: merge, inspect, reproduce and unmerge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from palette.cli.options import AsJson, Output, Overrides, Quiet, exit_by_gate, listed, printer_of

Backbone = Annotated[Path | None, typer.Option(help="the backbone's local folder, which only DoRA needs")]
AdapterFile = Annotated[Path, typer.Argument(help="the merged adapter", metavar="FILE")]


def merge(
    adapters: Annotated[
        list[Path],
        typer.Argument(help="adapter folders or .safetensors files, or one merge recipe (YAML)"),
    ],
    method: Annotated[str | None, typer.Option(help="weighted_sum (default), ties and others")] = None,
    weights: Annotated[str | None, typer.Option(help="one each, joined by commas")] = None,
    rank: Annotated[int | None, typer.Option(help="largest rank of the result (default: exact)")] = None,
    energy: Annotated[float | None, typer.Option(help="share of each module's energy to keep")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="an option of the method, as key=value; repeatable")
    ] = None,
    compat: Annotated[str | None, typer.Option(help="whose reading of it: peft, mergekit, paper")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 (default), bfloat16 or float16")] = None,
    backbone: Backbone = None,
    into: Annotated[
        Path | None, typer.Option(help="write this backbone's folder with the merge in its weights instead")
    ] = None,
    output: Output = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Merge adapters: the exact weighted sum of their ΔW, or another method."""
    from palette.cli.console import show_fused, show_merge
    from palette.merging.settings import merge_settings

    printer = printer_of(as_json, quiet)
    named = {"method": method, "rank": rank, "energy": energy, "compat": compat, "dtype": dtype}
    more: dict[str, Any] = {"backbone": backbone, "weights": listed(weights) if weights else None}
    given = {key: value for key, value in {**named, **more}.items() if value is not None}
    assigned = [*[f"merge.options.{one}" for one in option or []], *(overrides or [])]
    settings = merge_settings(adapters, given, assigned)
    # What needs a model's libraries comes after the mistakes that can be told without them.
    from palette.stages.merge import merge as merge_adapters
    from palette.stages.merge import merge_into

    if into is not None:
        fused = merge_into(settings, into, output, printer.progress)
        printer.result(fused, show_fused(fused))
        return
    result = merge_adapters(settings, output, printer.progress).to_json()
    printer.result(result, show_merge(result))
    if result["gate"] is not None:
        exit_by_gate(result)


def inspect(
    adapters: Annotated[list[Path], typer.Argument(help="adapter folders or .safetensors files")],
    picture: Annotated[Path | None, typer.Option(help="draw how they interfere, .svg or .png")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what adapters are, and how much several of them interfere."""
    from palette.cli.console import show_inspection
    from palette.stages.inspect import inspect as inspect_adapters

    result = inspect_adapters(adapters, picture)
    printer_of(as_json, quiet).result(result, show_inspection(result))


def reproduce(
    adapter: AdapterFile,
    sources: Annotated[
        list[Path] | None, typer.Option("--from", help="where one of its adapters lies; repeatable")
    ] = None,
    backbone: Backbone = None,
    output: Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a merge again from what its header says, and compare it byte by byte."""
    from palette.cli.console import show_reproduction
    from palette.stages.reproduce import reproduce as reproduce_merge

    printer = printer_of(as_json, quiet)
    result = reproduce_merge(adapter, sources or [], output, backbone, printer.progress)
    printer.result(result, show_reproduction(result))


def unmerge(
    adapter: AdapterFile,
    member: Annotated[str, typer.Argument(help="a domain, or the start of an adapter's digest")],
    rest: Annotated[bool, typer.Option("--rest", help="write the sum of all the others instead")] = False,
    output: Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Give back one adapter of an exact sum, or the sum without it."""
    from palette.cli.console import show_unmerge
    from palette.stages.unmerge import unmerge as unmerge_member

    result = unmerge_member(adapter, member, output, rest=rest)
    printer_of(as_json, quiet).result(result, show_unmerge(result))
