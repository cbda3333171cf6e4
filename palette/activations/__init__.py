"""Reading and editing the residual stream inside a ``with``: sites, hooks, capture, skipping."""

from palette.activations.edits import EditPlace, Edits, RankOneEdit, applied, first_block, stacked
from palette.activations.hooks import Edit, Stream, block_outputs, captured, edited
from palette.activations.skipping import narrowed, positionwise, run_block, skipped

__all__ = [
    "Edit",
    "EditPlace",
    "Edits",
    "RankOneEdit",
    "Stream",
    "applied",
    "block_outputs",
    "captured",
    "edited",
    "first_block",
    "narrowed",
    "positionwise",
    "run_block",
    "skipped",
    "stacked",
]
