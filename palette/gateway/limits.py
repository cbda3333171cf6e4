"""How much a gateway takes, of everybody together and of each tenant and key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of one gateway; every one of them is a refusal with its own status, never a slow server."""

    body_bytes: int = 1 << 20
    messages: int = 256
    choices: int = 4
    """Replies to one request (``n``) at most."""
    max_tokens: int = 4096
    """Tokens of a reply that may be asked for."""
    default_tokens: int = 512
    """Tokens of a reply at most, where a request does not say."""
    requests_a_minute: int = 600
    """Of one key; of one tenant ``tenant_requests_a_minute``, whatever keys it has."""
    tenant_requests_a_minute: int = 1200
    strangers_a_minute: int = 600
    """Requests without a known key from one address; more are refused without a line in the ledger."""
    at_once: int = 64
    """Requests that are answered at the same time; of one tenant ``tenant_at_once``."""
    tenant_at_once: int = 16
    body_seconds: float = 10.0
    """Time for a request's body to arrive."""
    piece_seconds: float = 60.0
    """Time for the next piece of a reply to come from the backend."""
    reply_seconds: float = 600.0
    """Time for a whole reply."""
    watch_seconds: float = 1.0
    """How old the last decision may be while a reply goes on."""
    renew_seconds: float = 5.0
    """How often folders of adapters are looked at for new certificates."""
    stop_seconds: float = 30.0
    """Time that replies have to end once the gateway is told to stop."""
