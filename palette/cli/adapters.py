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
    from palette.merging.inputs import weighted
    from palette.recipe import load_merge, merge_settings
    from palette.stages.merge import fuse_parents, merge_parents

    printer = printer_of(as_json, quiet)
    named = {"method": method, "rank": rank, "energy": energy, "compat": compat, "dtype": dtype}
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if backbone is not None:
        given["backbone"] = str(backbone)
    more = [*[f"merge.options.{one}" for one in option or []], *(overrides or [])]
    if len(adapters) == 1 and adapters[0].suffix in (".yaml", ".yml"):
        laid = [f"merge.{key}={value}" for key, value in given.items()]
        parents, settings = load_merge(adapters[0], [*laid, *more])
    else:
        settings = merge_settings({**given, "weights": weights and listed(weights)}, more)
        parents = weighted(adapters, settings.weights)
    if into is not None:
        fused = fuse_parents(parents, into, output, settings, printer.progress)
        printer.result(fused, show_fused(fused))
        return
    result = merge_parents(parents, output, settings, printer.progress)
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
