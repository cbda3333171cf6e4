"""Who signed what: Ed25519 keys, each for one purpose, and DSSE envelopes."""

from palette.signing.envelope import Envelope, sign, verified
from palette.signing.keys import (
    KeyRing,
    PrivateKey,
    PublicKey,
    Purpose,
    generate,
    read_key_ring,
    read_private,
    same_person,
)

__all__ = [
    "Envelope",
    "KeyRing",
    "PrivateKey",
    "PublicKey",
    "Purpose",
    "generate",
    "read_key_ring",
    "read_private",
    "same_person",
    "sign",
    "verified",
]
