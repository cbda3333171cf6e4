"""A merge method of one's own: every adapter has as much to say, whatever the norm of its ΔW.

``palette merge runs/medical runs/legal --method docs/examples/equal_say.py:equal_say``
"""

from __future__ import annotations

from palette.adapters.factorisation import concatenate
from palette.adapters.lora import LoraModule
from palette.merging.inputs import Group


def equal_say(group: Group) -> LoraModule:
    """ΔW = Σᵢ wᵢ (n / ‖ΔWᵢ‖) ΔWᵢ in each module, with n the mean of the norms; exact on the factors."""
    norms = [module.norm() for module in group.modules]
    mean = sum(norms) / len(norms)
    shares = [mean / norm if norm else 0.0 for norm in norms]
    return concatenate(group.modules, [w * share for w, share in zip(group.weights, shares, strict=True)])
