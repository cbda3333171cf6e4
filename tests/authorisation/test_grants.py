from __future__ import annotations

import json
from pathlib import Path

import pytest

from palette.authorisation import FLOOR, grant, read_grant
from palette.authorisation.grants import GRANT_TYPE, authorisation_name, identifier
from palette.errors import AuthorisationError, SignatureError
from palette.signing import Envelope, KeyRing, PrivateKey, Purpose, sign
from palette.signing.instants import told
from tests.fixtures.keys import DAY, NOW, key


@pytest.fixture(scope="module")
def authoriser(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return key(tmp_path_factory.mktemp("keys"), Purpose.AUTHORISE)


def granted(authoriser: PrivateKey, *domains: str, evidence: str = "contract 7") -> Envelope:
    period = (NOW, NOW + DAY)
    return grant("st-mary", domains, period=period, evidence=evidence, issued=NOW, key=authoriser)


def test_a_grant_is_read_as_it_was_signed(authoriser: PrivateKey) -> None:
    envelope = Envelope.read(granted(authoriser, "medical", "legal").text)
    found = read_grant(envelope, KeyRing.of([authoriser.public]))
    assert (found.tenant, found.domains) == ("st-mary", frozenset({"medical", "legal"}))
    assert (found.not_before, found.expires, found.evidence) == (NOW, NOW + DAY, "contract 7")
    assert (found.issuer, found.digest) == (authoriser.public.id, envelope.digest)


@pytest.mark.parametrize("domain", sorted(FLOOR.domains | FLOOR.hazards))
def test_the_floor_is_neither_granted_nor_read(authoriser: PrivateKey, domain: str) -> None:
    with pytest.raises(AuthorisationError, match="the floor cannot be authorised"):
        granted(authoriser, "medical", domain)
    content = json.loads(granted(authoriser, "medical").payload) | {"domains": ["medical", domain]}
    forged = sign(GRANT_TYPE, json.dumps(content).encode(), [authoriser])
    with pytest.raises(AuthorisationError, match="the floor cannot be authorised"):
        read_grant(forged, KeyRing.of([authoriser.public]))


@pytest.mark.parametrize("purpose", [Purpose.CERTIFY, Purpose.LEDGER])
def test_another_keys_word_grants_nothing(tmp_path: Path, authoriser: PrivateKey, purpose: Purpose) -> None:
    other = key(tmp_path, purpose)
    with pytest.raises(SignatureError, match="a key to authorise"):
        granted(other, "medical")
    forged = sign(GRANT_TYPE, granted(authoriser, "medical").payload, [other])
    with pytest.raises(SignatureError, match="a key to authorise"):
        read_grant(forged, KeyRing.of([authoriser.public, other.public]))


@pytest.mark.parametrize(
    "change",
    [
        {"format": "palette-grant/2"},
        {"domains": []},
        {"domains": "medical"},
        {"domains": [1]},
        {"tenant": "../other"},
        {"expires": "never"},
        {"issued": None},
        {"tenant": None},
    ],
)
def test_a_signed_statement_that_is_no_grant_is_told(
    authoriser: PrivateKey, change: dict[str, object]
) -> None:
    content = json.loads(granted(authoriser, "medical").payload) | change
    forged = sign(GRANT_TYPE, json.dumps(content).encode(), [authoriser])
    with pytest.raises((SignatureError, AuthorisationError)):
        read_grant(forged, KeyRing.of([authoriser.public]))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Medical",
        "a/b",
        "..",
        "a..b",
        "../a",
        "m\u0435dical",
        "a\x00",
        "a b",
        "x" * 65,
        "-a",
        "a\n",
        "\uff41",
    ],
)
def test_names_that_could_be_taken_for_others_are_refused(name: str) -> None:
    with pytest.raises(AuthorisationError, match="small letters"):
        identifier("a tenant", name)


def test_a_grant_has_domains_evidence_and_an_end(authoriser: PrivateKey) -> None:
    with pytest.raises(AuthorisationError, match="must name a domain"):
        granted(authoriser)
    with pytest.raises(AuthorisationError, match="evidence"):
        granted(authoriser, "medical", evidence="  ")
    with pytest.raises(AuthorisationError, match="end behind its beginning"):
        grant("a", ["medical"], period=(NOW, NOW), evidence="e", issued=NOW, key=authoriser)


def test_an_authorisation_has_one_name() -> None:
    assert (
        authorisation_name(["medical", "legal"])
        == authorisation_name({"legal", "medical"})
        == "legal+medical"
    )


def test_two_grants_of_the_same_words_are_two(authoriser: PrivateKey) -> None:
    assert granted(authoriser, "medical").digest != granted(authoriser, "medical").digest
    assert told(NOW) in granted(authoriser, "medical").payload.decode()
