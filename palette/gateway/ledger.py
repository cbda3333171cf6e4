"""What is kept of what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """What happened: a decision, a reply, a grant, a revocation, a start or a stop; never what was said.

    ``model`` is the name that was asked for, ``adapter`` and ``certificate`` digests of what answered,
    ``grants`` digests of their statements, ``prompt_hmac`` a keyed hash, ``remarks`` names of fields that
    were taken off and the like.
    """

    kind: str
    tenant: str | None = None
    credential: str | None = None
    model: str | None = None
    reason: str | None = None
    status: int | None = None
    adapter: str | None = None
    certificate: str | None = None
    grants: tuple[str, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_hmac: str | None = None
    request: str | None = None
    remarks: Mapping[str, Any] = field(default_factory=dict)
