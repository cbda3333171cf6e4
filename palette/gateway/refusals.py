"""What a client is told where it is not answered: a status, a reason, one sentence, never a secret."""

from __future__ import annotations

import math
from typing import Any

from palette.authorisation import Decision, Reason
from palette.authorisation.grants import JOINT

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
"""OpenAI's type of an error, by status."""

UNKNOWN = "the key is not one that may ask: it is missing, wrong, expired or revoked"
"""One sentence for all of them, so that nothing is learnt of keys by trying."""


class Refused(Exception):  # noqa: N818 - the vocabulary's word; the caller's errors are PaletteErrors
    """A request that is not answered, or a reply that is not gone on with."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        retry_after: float | None = None,
        remarks: dict[str, Any] | None = None,
        recorded: str | None = None,
    ) -> None:
        """``recorded`` is the reason as the ledger has it, where a client is told less."""
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.recorded = recorded or reason
        self.retry_after, self.remarks = retry_after, remarks or {}

    @property
    def body(self) -> dict[str, Any]:
        """The refusal in OpenAI's shape."""
        kind = KINDS.get(self.status, KINDS[500])
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.reason}}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that its status asks for."""
        headers = {"WWW-Authenticate": 'Bearer realm="palette"'} if self.status == 401 else {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        return headers


def denied(decision: Decision) -> Refused:
    """The refusal that tells a decision which denies."""
    if decision.status == 401:
        # Why a key is not one is the ledger's alone.
        return unknown(decision.reason)
    return Refused(decision.status, decision.reason.value, _sentence(decision))


def unknown(reason: Reason) -> Refused:
    """The refusal of whoever is not known, which is one whatever the reason."""
    return Refused(401, "invalid_api_key", UNKNOWN, recorded=reason.value)


def unavailable(reason: str = "backend_unavailable") -> Refused:
    """The refusal where the adapter cannot answer; nothing else answers in its place."""
    told = "the adapter of this authorisation cannot answer now, and no other one does; try again later"
    return Refused(503, reason, told, retry_after=5)


def busy(seconds: float = 1.0) -> Refused:
    """The refusal where too many wait already."""
    return Refused(429, "busy", "too many requests wait for an answer; try again later", retry_after=seconds)


def _sentence(decision: Decision) -> str:
    if decision.reason is Reason.SUSPENDED:
        return "this tenant is suspended; ask the operator"
    if decision.reason is Reason.NO_GRANT:
        return "no grant is in force for this key; ask the operator for one"
    if decision.reason is Reason.NOT_GRANTED:
        return f"this key may ask for the model {decision.name} and for nothing else; GET /v1/models names it"
    if decision.reason is Reason.NO_CERTIFICATE:
        return (
            f"no adapter is certified for exactly {decision.name}, and none of less or more is taken for it; "
            f"the operator makes it with: {making(decision.domains)}"
        )
    return "the certificate and a grant are signed by one and the same key; ask the operator"


def making(domains: frozenset[str]) -> str:
    """The command that makes the certified adapter of exactly these domains."""
    name = JOINT.join(sorted(domains))
    certify = f"palette certify runs/{name} --key KEY --approver NAME"
    if len(domains) == 1:
        return certify
    parts = " ".join(f"runs/{domain}" for domain in sorted(domains))
    return f"palette merge {parts} --output runs/{name} && {certify}"
