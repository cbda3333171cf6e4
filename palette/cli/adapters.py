"""The commands on adapters alone: merge, inspect, reproduce, unmerge and push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from palette.cli.call import RECIPE, Call, command, listed

Backbone = Annotated[Path | None, typer.Option(help="the backbone's local folder, which only DoRA needs")]
AdapterFile = Annotated[Path, typer.Argument(help="the merged adapter", metavar="FILE")]


@command(*RECIPE)
def merge(
    call: Call,
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
    same_backbone: Annotated[
        bool,
        typer.Option("--same-backbone", help="the adapters' backbones, differently named, are one model"),
    ] = False,
    into: Annotated[
        str | None, typer.Option(help="write this model, named as in a recipe, with the merge in its weights")
    ] = None,
) -> None:
    """Merge adapters: the exact weighted sum of their ΔW, or another method."""
    from palette.merging.settings import merge_settings

    named = {"method": method, "rank": rank, "energy": energy, "compat": compat, "dtype": dtype}
    more: dict[str, Any] = {"backbone": backbone, "weights": listed(weights) if weights else None}
    given = {key: value for key, value in {**named, **more}.items() if value is not None}
    given |= {"same_backbone": True} if same_backbone else {}
    assigned = [*[f"merge.options.{text}" for text in option or []], *call.overrides]
    settings = merge_settings(adapters, given, assigned)
    # What needs a model's libraries comes after the mistakes that can be told without them.
    from palette.merging.writing import merge_into
    from palette.run import folder_of
    from palette.stages.merge import merge as merge_adapters

    if into is not None:
        # A folder of weights alone will do; of whatever else a name stands for, the model is needed.
        folder = Path(into) if any(Path(into).glob("*.safetensors")) else folder_of(into)
        call.result(merge_into(settings, folder, call.output, call.progress), "fusion")
        return
    result = merge_adapters(settings, call.output, call.progress).to_json()
    call.result(result, "merge")
    if result["gate"] is not None:
        call.end(result["gate"]["passed"])


@command()
def inspect(
    call: Call,
    adapters: Annotated[
        list[Path],
        typer.Argument(
            help="adapter folders or .safetensors files, or one model", metavar="ADAPTER...|MODEL"
        ),
    ],
    picture: Annotated[Path | None, typer.Option(help="draw how they interfere, .svg or .png")] = None,
    sarif: Annotated[Path | None, typer.Option(help="write what is wrong or worth knowing as SARIF")] = None,
) -> None:
    """Say what adapters are, and how much several of them interfere; or what a model is made of."""
    from palette.stages.inspect import inspect as inspect_files

    result = inspect_files(adapters, picture, sarif)
    call.result(result, "inspection" if "adapters" in result else "anatomy")


@command("output")
def export(
    call: Call,
    folder: Annotated[Path, typer.Argument(help="the folder of a run, or of an adapter", metavar="RUN")],
    to: Annotated[str, typer.Option(help="gguf (the adapter), control-vector or steering-vector")] = "gguf",
    model: Annotated[str | None, typer.Option(help="the backbone of an adapter without a report")] = None,
) -> None:
    """Write a run's adapter for llama.cpp, or its refusal direction as a control vector."""
    from palette.stages.export import export as export_run

    call.result(export_run(folder, to, call.output, model), "export")


@command("output")
def attribute(
    call: Call,
    folder: Annotated[Path, typer.Argument(help="the folder of a run", metavar="RUN")],
    patching: Annotated[
        bool,
        typer.Option("--patching", help="patch them from one prompt into another, and from the adapter"),
    ] = False,
    ids: Annotated[
        str | None, typer.Option(help="ids of prompts to patch, joined by commas (default: a few a domain)")
    ] = None,
) -> None:
    """Tell which layers, heads and MLPs write the refusal direction, before and after the adapter."""
    from palette.stages.attribute import attribute as attribute_run

    chosen = listed(ids) if ids else ()
    result = attribute_run(folder, call.output, call.progress, patching=patching, ids=chosen)
    call.result(result, "patching" if patching else "attribution")


@command("output")
def reproduce(
    call: Call,
    adapter: AdapterFile,
    sources: Annotated[
        list[Path] | None, typer.Option("--from", help="where one of its adapters lies; repeatable")
    ] = None,
    backbone: Backbone = None,
) -> None:
    """Make a merge again from what its header says, and compare it byte by byte."""
    from palette.stages.merged import reproduce as reproduce_merge

    result = reproduce_merge(adapter, sources or [], call.output, backbone, call.progress)
    call.result(result, "reproduction")


@command("output")
def unmerge(
    call: Call,
    adapter: AdapterFile,
    member: Annotated[str, typer.Argument(help="a domain, or the start of an adapter's digest")],
    rest: Annotated[bool, typer.Option("--rest", help="write the sum of all the others instead")] = False,
) -> None:
    """Give back one adapter of an exact sum, or the sum without it."""
    from palette.stages.merged import unmerge as unmerge_member

    call.result(unmerge_member(adapter, member, call.output, rest=rest), "unmerge")


@command()
def push(
    call: Call,
    folder: Annotated[Path, typer.Argument(help="the adapter's folder, with its report")],
    repo_id: Annotated[str, typer.Argument(help="where to, as owner/name", metavar="REPO_ID")],
    public: Annotated[
        bool, typer.Option("--public", help="for everybody to read (default: private)")
    ] = False,
    despite_failed_gate: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="push although the gate failed; the reason is recorded"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be uploaded")] = False,
) -> None:
    """Upload an adapter with its card and report; one whose gate failed is refused."""
    from palette.stages.push import push as push_adapter

    result = push_adapter(folder, repo_id, public=public, reason=despite_failed_gate, dry_run=dry_run)
    call.result(result, "push")
