"""An identity provider in memory: its keys, and the tokens that it signs; and tokens that others forge."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from functools import cache
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from palette.gateway.identity import Provider
from tests.gateway.fakes import NOW

ISSUER, AUDIENCE = "https://id.example", "palette"


@cache
def key(name: str = "idp") -> ECKey:
    return ECKey.generate_key("P-256", {"kid": name, "use": "sig", "alg": "ES256"})


def provider(**more: Any) -> Provider:
    public = key().as_dict(private=False)
    return Provider(ISSUER, AUDIENCE, lambda: {"keys": [public]}, **{"algorithms": ("ES256",), **more})


def claims(**more: Any) -> dict[str, Any]:
    at = int(NOW.timestamp())
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "dr-jones",
        "palette_tenant": "hospital",
        "nbf": at - 60,
        "iat": at - 60,
        "exp": at + int(timedelta(minutes=5).total_seconds()),
    }
    return {name: value for name, value in {**usual, **more}.items() if value is not None}


def token(header: dict[str, Any] | None = None, signer: ECKey | None = None, **more: Any) -> str:
    head = {"alg": "ES256", "kid": "idp", **(header or {})}
    return jwt.encode(head, claims(**more), signer or key(), algorithms=["ES256"])


def unsigned(alg: str = "none") -> str:
    return f"{_joined({'alg': alg, 'kid': 'idp', 'typ': 'JWT'}, claims())}."


def signed_with_the_public_key() -> str:
    """A token whose signature is a hash under the provider's public key, which everybody has."""
    said = _joined({"alg": "HS256", "kid": "idp"}, claims())
    return f"{said}.{_text(public_hash(said))}"


def public_hash(said: str) -> bytes:
    return hmac.new(key().as_pem(private=False), said.encode(), hashlib.sha256).digest()


def _joined(*parts: dict[str, Any]) -> str:
    return ".".join(_text(json.dumps(part).encode()) for part in parts)


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def bringing_its_own_key(field: str) -> str:
    """A token that is signed by a stranger's key, and says where to find it."""
    own = key("stranger")
    public = own.as_dict(private=False)
    brought = {
        "jwk": public,
        "jku": "https://evil.example/jwks.json",
        "x5u": "https://evil.example/chain.pem",
    }
    return token({field: brought[field]}, signer=own)
