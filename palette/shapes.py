"""Names of the axes that shape annotations use, in one place.

``Float[Tensor, "layer position d_model"]`` reads: layer 0 is the embedding output (``resid_pre`` of
block 0) and layer L the output of the last block; positions run over the post-instruction tokens;
``d_model`` is the width of the residual stream. Tests enforce annotations with beartype.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
