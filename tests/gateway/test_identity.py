"""Who asks, by a token of an identity provider: what holds, and what is none."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from palette.errors import GatewayError
from palette.gateway.identity import Credentials, Provider, bearer, read_provider
from tests.gateway.calls import chat
from tests.gateway.fakes import NOW, World
from tests.gateway.tokens import (
    AUDIENCE,
    ISSUER,
    bringing_its_own_key,
    key,
    provider,
    signed_with_the_public_key,
    token,
    unsigned,
)

SOON, BEFORE = int((NOW + timedelta(minutes=5)).timestamp()), int((NOW - timedelta(minutes=5)).timestamp())


def known(world: World, text: str, given: Provider | None = None):
    return Credentials(world.store, given or provider()).known(text, NOW)


def test_a_token_that_holds_is_its_tenants(world):
    tenant, (credential,) = known(world, token())
    assert tenant.id == credential.tenant == "hospital"
    assert credential.id == "oidc:dr-jones"
    assert credential.domains is None
    assert int(credential.expires.timestamp()) == SOON


def test_a_token_may_ask_for_less_and_never_for_more(world):
    _, (credential,) = known(world, token(palette_domains=["medical", "finance"]))
    assert credential.domains == {"medical", "finance"}
    assert known(world, token(palette_domains="medical")) == (None, ())


FORGED = {
    "expired": lambda: token(exp=BEFORE),
    "without an end": lambda: token(exp=None),
    "not yet": lambda: token(nbf=SOON),
    "another issuer": lambda: token(iss="https://evil.example"),
    "no issuer": lambda: token(iss=None),
    "another audience": lambda: token(aud="somebody"),
    "no audience": lambda: token(aud=None),
    "no subject": lambda: token(sub=None),
    "no tenant": lambda: token(palette_tenant=None),
    "an unknown tenant": lambda: token(palette_tenant="mallory"),
    "a tenant like another": lambda: token(palette_tenant="Hospital"),
    "a list of tenants": lambda: token(palette_tenant=["hospital"]),
    "an end without end": lambda: token(exp=10**30),
    "unsigned": unsigned,
    "unsigned in capitals": lambda: unsigned("NONE"),
    "signed with the public key": signed_with_the_public_key,
    "of another key": lambda: token(signer=key("stranger")),
    "of an unknown id": lambda: token({"kid": "another"}),
    "of another type": lambda: token({"typ": "logout+jwt"}),
    "with its own jwk": lambda: bringing_its_own_key("jwk"),
    "with its own jku": lambda: bringing_its_own_key("jku"),
    "with its own x5u": lambda: bringing_its_own_key("x5u"),
    "cut": lambda: token()[:-4],
    "no token": lambda: "a.b.c",
    "empty": lambda: "..",
}


@pytest.mark.parametrize("what", FORGED)
def test_a_token_is_nobodys_if_it_is(world, what):
    assert known(world, FORGED[what]()) == (None, ())


def test_tokens_are_nobodys_where_there_is_no_provider(world):
    assert Credentials(world.store).known(token(), NOW) == (None, ())


@pytest.mark.parametrize("algorithms", [("HS256",), ("none",), ("ES256", "HS256"), ()])
def test_a_providers_algorithms_are_those_of_public_keys(algorithms):
    with pytest.raises(GatewayError, match="algorithms"):
        provider(algorithms=algorithms)


def test_a_token_ends_in_the_middle_of_a_stream(world, call):
    from tests.gateway.calls import events

    services = world.services

    def with_provider(**more):
        return services(credentials=Credentials(world.store, provider()), **more)

    world.services = with_provider
    world.backend.before = lambda index: world.clock.on(minutes=5) if index == 2 else None
    *_, last = events(call(chat(stream=True), token()).text)
    assert last["error"]["code"] == "expired"
    assert world.ledger.of("decision")[0].credential == "oidc:dr-jones"


def test_keys_of_a_provider_are_public_and_have_ids(tmp_path):
    file = tmp_path / "jwks.json"
    public, private = key().as_dict(private=False), key().as_dict(private=True)
    file.write_text(json.dumps({"keys": [public]}))
    assert read_provider(ISSUER, AUDIENCE, file).claims(token(), NOW)
    nameless = {name: value for name, value in public.items() if name != "kid"}
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}
    for content in ({"keys": [private]}, {"keys": [nameless]}, {"keys": [secret]}, {"keys": []}, {}, []):
        file.write_text(json.dumps(content))
        with pytest.raises(GatewayError, match="public keys"):
            read_provider(ISSUER, AUDIENCE, file)
    with pytest.raises(GatewayError):
        read_provider(ISSUER, AUDIENCE, tmp_path / "none")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([b"Bearer abc"], "abc"),
        ([b"bearer  abc "], "abc"),
        ([b"Bearer"], None),
        ([b"Bearer "], None),
        ([b"Bearer a b"], None),
        ([b"Bearer a\xc3\xa9"], None),
        ([b"Token abc"], None),
        ([b"Bearer abc", b"Bearer abc"], None),
        ([b"Bearer " + b"a" * 9000], None),
        ([], None),
    ],
)
def test_a_credential_is_one_word_of_one_header(headers, found):
    assert bearer([(b"authorization", each) for each in headers]) == found
