"""The certified files signed once more as OpenSSF model-signing does, for whoever verifies models by that.

Its signature is of files alone: it says neither what they open nor for which backbone, and still verifies in
another adapter's folder. It stands beside a certificate and never in its place.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from palette.certificates.contents import Contents
from palette.errors import SignatureError
from palette.files import atomic


def sign_model(contents: Contents, key: Path, path: Path) -> None:
    """Writes the signature of an adapter's files, a Sigstore bundle, to ``path``.

    ``key`` is an elliptic key of its own, since model-signing has no Ed25519.

    Raises:
        SignatureError: if model-signing is not installed, or the key is none that it takes.
        OutputError: if the disk cannot take the signature.
    """
    require_model_signing()
    from model_signing.signing import Config

    if not key.is_file():
        law = "model-signing signs by a private elliptic key"
        raise SignatureError(law, got="no such file", remedy="make one with openssl ecparam", where=key)
    # It signs whatever lies in a folder: here lie the certified bytes and nothing else.
    with TemporaryDirectory(prefix="palette-") as private, atomic(path) as temporary:
        contents.write(Path(private))
        try:
            Config().use_elliptic_key_signer(private_key=key).sign(Path(private), temporary)
        except (ValueError, TypeError, AttributeError) as error:
            law = "model-signing signs by an unencrypted elliptic key (P-256, P-384 or P-521)"
            raise SignatureError(law, got="another file", where=key) from error


def require_model_signing() -> None:
    """Returns nothing; what signs is ``model-signing``.

    Raises:
        SignatureError: if it is not installed.
    """
    if find_spec("model_signing") is None:
        raise SignatureError(
            "a signature of OpenSSF model-signing needs the package model-signing",
            got="none",
            remedy="pip install 'palette-llm[openssf]'",
        )
