"""Reading and editing the residual stream inside a ``with``: sites, hooks, capture."""

from palette.activations.hooks import Edit, block_outputs, captured, edited

__all__ = ["Edit", "block_outputs", "captured", "edited"]
