"""The options of ``palette serve``: each mistake is one sentence, before anything is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palette.cli import serving, tenants
from palette.cli.serving import limits_of
from palette.errors import GatewayError


def test_limits_are_set_by_name():
    found = limits_of(["at_once=3", "piece_seconds=0.5"])
    assert (found.at_once, found.piece_seconds, found.choices) == (3, 0.5, 4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("at_onec=3", "did you mean at_once"),
        ("zzz=3", "take one of body_bytes"),
        ("at_once=0", "positive number"),
        ("at_once=-1", "positive number"),
        ("at_once=1.5", "positive number"),
        ("at_once", "positive number"),
        ("piece_seconds=nan", "positive number"),
        ("piece_seconds=inf", "positive number"),
    ],
)
def test_what_is_no_limit_is_one_sentence(text, told):
    with pytest.raises(GatewayError, match=told):
        limits_of([text])


def test_what_is_not_installed_is_told_in_one_sentence(monkeypatch):
    wanted = (*tenants.PACKAGES, *serving.LIBRARIES)
    tenants.require_packages("a gateway needs", wanted, GatewayError)
    monkeypatch.setattr(tenants, "find_spec", lambda name: None if name == "uvicorn" else object())
    told = r"a gateway needs the packages .*, got none of uvicorn; pip install 'palette-llm\[tenants\]'"
    with pytest.raises(GatewayError, match=told):
        tenants.require_packages("a gateway needs", wanted, GatewayError)


def test_a_provider_is_given_whole_or_not_at_all(tmp_path: Path):
    assert serving._provider(None, None, None, "RS256") is None
    with pytest.raises(GatewayError, match="give all three"):
        serving._provider("https://id.example", None, None, "RS256")
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": []}))
    with pytest.raises(GatewayError, match="public keys"):
        serving._provider("https://id.example", "palette", file, "RS256")


def test_an_upstream_elsewhere_is_refused_before_a_model_is_loaded():
    with pytest.raises(GatewayError, match="on this machine"):
        serving._upstream("http://10.0.0.1:8000/v1", None, limits_of([]), elsewhere=False)
    assert serving._upstream(None, None, limits_of([]), elsewhere=False) is None
