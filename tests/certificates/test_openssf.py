"""The export to OpenSSF model-signing: its own library verifies it, and where there is none that is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from palette.certificates import openssf
from palette.certificates.contents import read_contents
from palette.certificates.openssf import sign_model
from palette.errors import SignatureError
from tests.certificates.conftest import Office


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """An elliptic key, its public part beside it."""
    secret = ec.generate_private_key(ec.SECP256R1())
    pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ec.pem").write_bytes(pem)
    public = secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ec.pub").write_bytes(public)
    return tmp_path / "ec.pem"


@pytest.mark.skipif(
    importlib.util.find_spec("model_signing") is None, reason="model-signing is not installed"
)
def test_its_own_library_verifies_the_certified_files_and_no_others(
    run: Path, key: Path, tmp_path: Path, office: Office
) -> None:
    from model_signing.verifying import Config

    signature = tmp_path / "model.sig"
    contents = read_contents(run)
    sign_model(contents, key, signature)
    contents.write(tmp_path / "alone")

    def verify() -> None:
        checker = Config().use_elliptic_key_verifier(public_key=key.with_suffix(".pub"))
        checker.verify(tmp_path / "alone", signature)

    verify()
    (tmp_path / "alone" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="mismatch"):
        verify()
    for wrong in (key.with_suffix(".pub"), office.folder / "certifier.pem"):
        with pytest.raises(SignatureError, match="unencrypted elliptic key"):
            sign_model(contents, wrong, tmp_path / "none.sig")
    assert not (tmp_path / "none.sig").exists()


def test_a_key_that_is_not_there_and_a_library_that_is_not_are_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = read_contents(run)
    with pytest.raises(SignatureError):
        sign_model(contents, tmp_path / "none.pem", tmp_path / "model.sig")
    monkeypatch.setattr(openssf, "find_spec", lambda _: None)
    with pytest.raises(SignatureError, match=r"needs the package model-signing.*pip install"):
        sign_model(contents, tmp_path / "none.pem", tmp_path / "model.sig")
