"""An adapter made ready in this process: of verified bytes, fitted, and heard to reply as certified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted, require_fit
from palette.backbones.backbone import Backbone
from palette.backbones.stepping import GrowingReplies, Row
from palette.errors import GatewayError
from palette.gateway.backend import Canary, Served


@dataclass(frozen=True)
class Ready:
    """A certificate with its adapter loaded, and the backbone that renders as it did when it was measured."""

    served: Served
    adapter: Adapter
    backbone: Backbone


def made_ready(model: Backbone, served: Served) -> Ready:
    """A certificate's adapter, once it has said its canaries.

    Raises:
        AdapterError: if it does not load, or does not fit.
        BackboneError: if the backbone has no place for the system prompt.
        GatewayError: if it says something else than it was certified to say.
    """
    adapter = served.adapter()
    require_fit(model.model, adapter)
    require_canaries(model, adapter, served.canaries)
    backbone = replace(model, thinking=served.thinking, system=served.system)
    backbone.template.require_system()
    return Ready(served, adapter, backbone)


def require_canaries(backbone: Backbone, adapter: Adapter, canaries: Sequence[Canary]) -> None:
    """Passes if the adapter says to every canary what its certificate says that it says.

    Raises:
        GatewayError: if it says something else: it, or the backbone, is not that of the certificate.
    """
    for number, canary in enumerate(canaries):
        growing = GrowingReplies(backbone, 1)
        row = Row(canary.prompt, max(1, len(canary.reply)))
        with mounted(backbone.model, adapter):
            growing.join(row)
            while growing.rows:
                growing.step()
        if tuple(row.said) != canary.reply:
            raise GatewayError(
                "an adapter must reply to its canaries as it was certified",
                got=f"another reply to canary {number}",
            )
