"""The table of merge methods: a new method is a pure function and a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from palette.adapters.lora import LoraModule
from palette.merging.ties import ties
from palette.merging.weighted_sum import weighted_sum
from palette.shapes import Tensor

MergeFunction = Callable[..., LoraModule | Tensor]
"""``function(modules, weights, **options)``: the merged ΔW of one module.

``modules`` come in canonical order, only those adapters that adapt the module. The result is
factors where the method is exact on factors, or a dense float64 ΔW, which is then factorised.
"""


@dataclass(frozen=True)
class MergeMethod:
    """One merge method: where it comes from, what it computes, and the options it takes."""

    name: str
    paper: str
    equation: str
    function: MergeFunction
    options: tuple[str, ...] = ()


METHODS: dict[str, MergeMethod] = {
    method.name: method
    for method in (
        MergeMethod(
            name="weighted_sum",
            paper="Editing Models with Task Arithmetic, arXiv 2212.04089",
            equation="the sum of weight times delta, exact on the factors",
            function=weighted_sum,
        ),
        MergeMethod(
            name="ties",
            paper="TIES-Merging, arXiv 2306.01708",
            equation="trim each weighted delta to its largest entries, elect a sign for each entry "
            "by summed mass, and average the entries of that sign",
            function=ties,
            options=("density",),
        ),
    )
}
