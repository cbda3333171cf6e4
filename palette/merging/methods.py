"""The table of merge methods: a new method is a pure function, its options, and a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, create_model

from palette.errors import RecipeError
from palette.registry import Registry, Row
from palette.settings import Settings, settled

OptionValue = float | int | bool | str
Compat = Literal["peft", "mergekit", "paper"]
"""Whose reading of a method: a tool's (PEFT's is that of its functions on dense tensors), or its paper's."""

Law = Literal["identity", "cancellation", "homogeneity", "rotation", "order"]
"""What the contract suite holds a method to, at its default options.

identity: one adapter at weight 1 is itself, with options that drop nothing. cancellation: a + (−a)
is 0. homogeneity: c times the weights gives c times the result, for c > 0. rotation: the factors of an
adapter may be rotated, its key being the same. order: adapters may come in any order.
"""

LAWS: frozenset[str] = frozenset(get_args(Law))


class Options(Settings):
    """The options of one method, given to its function by name; values must have their own type."""

    model_config = ConfigDict(strict=True)


def options(**fields: Any) -> type[Options]:
    """The model of a method's options: of each its type with what it is, and its default."""
    return create_model("MergeOptions", __base__=Options, **fields)


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Density = Annotated[Positive, Field(description="share of each delta's entries that is kept")]
Seed = Annotated[int, Field(ge=0, description="seed of the random mask")]
Trim = Annotated[
    Literal["tensor", "global"],
    Field(description="whether the largest entries are those of each tensor or those of the whole adapter"),
]
DROPPED = "what makes up for dropped entries: division by the {} of keeping one, or the module's L1 norm"
Rescale = Annotated[Literal["density", "l1", "none"], Field(description=DROPPED.format("density"))]
RescaleByChance = Annotated[Literal["chance", "l1", "none"], Field(description=DROPPED.format("chance"))]
Elect = Annotated[
    Literal["after", "before", "none"],
    Field(description="whether weighted or unweighted task vectors elect signs (after, before weighting)"),
]
Divide = Annotated[
    Literal["count", "weight", "none"],
    Field(description="what a sum of agreeing entries is divided by: their count, their weights, or 1"),
]
Values = Annotated[
    Literal["before", "after"],
    Field(description="whether singular values are multiplied in before the merge or after it"),
]
SIGNS: dict[str, Any] = {"elect": (Elect, "after"), "divide": (Divide, "count")}
UNSIGNED: dict[str, Any] = {"elect": (Elect, "none"), "divide": (Divide, "none")}


@dataclass(frozen=True)
class MergeMethod(Row):
    """One merge method: what it computes and where that comes from, what it can be told, what it keeps.

    Its function is ``function(group, **options)``, the merged ΔW of one module: factors where it is
    exact on them, ``Tiled`` rows where it works entry by entry.
    """

    laws: frozenset[str] = LAWS
    compat: Mapping[str, Mapping[str, OptionValue]] = field(default_factory=dict)
    """The options with which it does what a tool or its paper does; densities and seeds are the caller's."""
    survey: Row | None = None
    """``survey(modules, **options)``: a number found in every whole adapter first."""
    takes_moments: bool = False
    stacks: bool = False
    """Whether the result is the inputs' own components one after the other."""

    def settled(self, given: Mapping[str, object], compat: str | None = None) -> dict[str, OptionValue]:
        """Every option with its value: the one given, or as ``compat`` has it, or its default.

        Raises:
            RecipeError: if there is no such option, a value breaks its law, or compat is not known to
                have the method.
        """
        if compat is not None and compat not in self.compat:
            law = f"compat {compat} must know the method"
            raise RecipeError(law, got=self.name, remedy="leave compat out, or set the options")
        values = {**self.compat.get(compat or "", {}), **given}
        names = self.options.model_fields
        return settled(self.options, values, "merge.options", names, f"merge by {self.name}").model_dump()


SPARSE, LOW_RANK = "palette.merging.sparse", "palette.merging.low_rank"
PEFT: dict[str, OptionValue] = {"elect": "before", "divide": "count"}
MERGEKIT: dict[str, OptionValue] = {"elect": "after", "divide": "weight"}
PAPER: dict[str, OptionValue] = {"elect": "after", "divide": "count"}
"""How those read the consensus of signs."""
SURVEY = Row("survey", f"{SPARSE}:survey", "the threshold of a whole adapter's entries")

TABLE = (
    MergeMethod(
        "weighted_sum",
        f"{LOW_RANK}:weighted_sum",
        "Editing Models with Task Arithmetic, arXiv 2212.04089: the weighted sum, exact on the factors",
        compat={"peft": {}, "mergekit": {}, "paper": {}},
        stacks=True,
    ),
    MergeMethod(
        "ties",
        f"{SPARSE}:ties",
        "TIES-Merging, arXiv 2306.01708: trim, elect each entry's sign, average what agrees with it",
        options(density=(Density, 0.2), trim=(Trim, "tensor"), **SIGNS),
        compat={
            "peft": {"trim": "tensor", **PEFT},
            "mergekit": {"trim": "tensor", **MERGEKIT},
            "paper": {"trim": "global", **PAPER},
        },
        survey=SURVEY,
    ),
    MergeMethod(
        "magnitude",
        f"{SPARSE}:ties",
        "Learning both Weights and Connections for Efficient Neural Networks, arXiv 1506.02626: the "
        "weighted sum of deltas trimmed to their largest entries",
        options(density=(Density, 0.2), trim=(Trim, "tensor")),
        compat={"peft": {"trim": "tensor"}},
        survey=SURVEY,
    ),
    MergeMethod(
        "breadcrumbs",
        f"{SPARSE}:breadcrumbs",
        "Model Breadcrumbs, arXiv 2312.06795: the weighted sum without largest and smallest entries",
        options(
            density=(Density, 0.14),
            gamma=(Share, Field(0.01, description="share of each delta's largest entries that is dropped")),
            **UNSIGNED,
        ),
        compat={"mergekit": {}, "paper": {}},
    ),
    MergeMethod(
        "dare",
        f"{SPARSE}:dare",
        "Language Models are Super Mario, arXiv 2311.03099: the weighted sum of deltas thinned at random",
        options(density=(Density, 0.5), rescale=(Rescale, "density"), seed=(Seed, 0)),
        compat={
            "peft": {"rescale": "density"},
            "mergekit": {"rescale": "l1"},
            "paper": {"rescale": "density"},
        },
    ),
    MergeMethod(
        "dare_ties",
        f"{SPARSE}:dare",
        "Language Models are Super Mario, arXiv 2311.03099: TIES of deltas thinned at random, not trimmed",
        options(density=(Density, 0.5), rescale=(Rescale, "density"), seed=(Seed, 0), **SIGNS),
        compat={
            "peft": {"rescale": "density", **PEFT},
            "mergekit": {"rescale": "l1", "elect": "after", "divide": "none"},
            "paper": {"rescale": "density", **PAPER},
        },
    ),
    MergeMethod(
        "della",
        f"{SPARSE}:della",
        "DELLA-Merging, arXiv 2406.11617: TIES of deltas thinned at random, small entries of a row most",
        options(
            density=(Density, 0.5),
            epsilon=(Share, Field(0.1, description="half the spread of the chances to be kept in a row")),
            rescale=(RescaleByChance, "chance"),
            seed=(Seed, 0),
            **SIGNS,
        ),
        compat={"mergekit": {"rescale": "l1", **MERGEKIT}, "paper": {"rescale": "chance", **PAPER}},
    ),
    MergeMethod(
        "knots",
        f"{LOW_RANK}:knots",
        "Model merging with SVD to tie the Knots, arXiv 2410.19735: TIES of the deltas' coordinates in the "
        "left singular basis of all deltas side by side",
        options(density=(Density, 0.2), values=(Values, "before"), **SIGNS),
    ),
    MergeMethod(
        "core_space",
        f"{LOW_RANK}:core_space",
        "Accurate and Efficient Low-Rank Model Merging in Core Space, arXiv 2509.17786: TIES of the "
        "deltas' cores between the bases of all outputs and all inputs",
        options(density=(Density, 0.2), **SIGNS),
    ),
    MergeMethod(
        "compress_then_merge",
        f"{LOW_RANK}:compress_then_merge",
        "Compress then Merge, arXiv 2606.03723: TIES of coordinates in two subspaces that hold most",
        options(
            components=(Count, Field(16, description="dimension of the shared subspaces")),
            beta=(Share, Field(0.25, description="how far the subspaces follow the deltas' own norms")),
            density=(Density, 0.2),
            **SIGNS,
        ),
    ),
    MergeMethod(
        "tsv",
        f"{LOW_RANK}:tsv",
        "Task Singular Vectors, arXiv 2412.00081: singular components, orthogonalised across deltas",
    ),
    MergeMethod(
        "pico",
        f"{LOW_RANK}:pico",
        "Crowded in B-Space, arXiv 2604.16826: the weighted sum, over-shared output directions damped",
        options(restore=(bool, Field(True, description="whether the deltas' mean norm is restored"))),
    ),
    MergeMethod(
        "svc",
        f"{LOW_RANK}:svc",
        "When Shared Knowledge Hurts, arXiv 2602.05536: the weighted sum, inflated singular values shrunk",
        options(alpha=(Positive, Field(1.0, description="least inflation; at 1 values only shrink"))),
    ),
    MergeMethod(
        "regmean",
        f"{LOW_RANK}:regmean",
        "Dataless Knowledge Fusion by Merging Weights of Language Models, arXiv 2212.09849: the sum of "
        "weight times delta times its inputs' share of all inputs' second moment",
        options(alpha=(Share, Field(0.9, description="how much of the moments off their diagonal is kept"))),
        laws=LAWS - {"cancellation"},
        takes_moments=True,
    ),
)
METHODS = Registry("a merge method", TABLE, group="palette.merge_methods")


def merge_method(name: str) -> MergeMethod:
    """The row of a name, or one of a user's own function, which takes a group and no options.

    Raises:
        RecipeError: if there is no such row.
    """
    row = METHODS.row(name)
    return row if isinstance(row, MergeMethod) else MergeMethod(name, row.function, row.source)
