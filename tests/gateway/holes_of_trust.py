"""Holes found in other gateways, in whom and what they believe; and a broken variant of each."""

from __future__ import annotations

import asyncio
import json
import tempfile
from base64 import urlsafe_b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from palette.authorisation import Decision, Reason
from palette.gateway import admission, remote, upstream, vllm
from palette.gateway.admission import Admission
from palette.gateway.backend import Served
from palette.gateway.identity import Credentials, Provider
from tests.fixtures.upstream import StandIn
from tests.gateway import tokens
from tests.gateway.calls import Caller, calling, chat, events, shown, words
from tests.gateway.fakes import NOW, World, certified, key
from tests.gateway.holes import Holes, Patch, decide_with
from tests.gateway.test_remote import CERTIFICATES, NAMES, started
from tests.gateway.test_remote import remote as remote_of

HOLES = Holes()
hole = HOLES.row


# 13. Verified, and then other bytes loaded.
def written_adapters_are_kept(patch: Patch, world: World) -> None:
    def kept(certificates: Any, folder: Path) -> dict[str, Path]:
        found = {each.facts.adapter: folder / each.facts.adapter for each in certificates}
        for each in certificates:
            if not found[each.facts.adapter].exists():
                each.write(found[each.facts.adapter])
        return found

    patch.setattr(vllm, "written", kept)


@hole("other bytes than those that were verified", written_adapters_are_kept)
def verified_bytes(world: World) -> None:
    def write(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_bytes(b"verified")

    one = Served(certified("medical"), lambda: None, write)
    with tempfile.TemporaryDirectory() as folder:
        (place,) = vllm.written([one], Path(folder)).values()
        (place / "weights").write_bytes(b"evil")
        vllm.written([one], Path(folder))
        assert (place / "weights").read_bytes() == b"verified"


# 14. A silent downgrade to the backbone.
def any_model_will_do(patch: Patch, world: World) -> None:
    read = remote._event
    patch.setattr(remote, "_event", lambda text: {**read(text), "model": certified("medical").adapter})


@hole("a reply of the backbone instead of the adapter's", any_model_will_do)
def no_downgrade(world: World) -> None:
    backend = remote_of(StandIn([*NAMES], downgrade=True))

    async def asked() -> httpx.Response:
        async with calling(world.services(backend=backend)) as client:
            return await client.post("/v1/chat/completions", json=chat(), headers=shown(key("hospital")))

    assert asyncio.run(asked()).status_code == 503
    assert world.ledger.of("reply")[0].reason == "another_model"


def certificates_of_less_will_do(patch: Patch, world: World) -> None:
    decide = admission.decide

    def generous(tenant: Any, request: Any, grants: Any, certificates: Any, now: Any) -> Decision:
        found = decide(tenant, request, grants, certificates, now)
        if found.reason is Reason.NO_CERTIFICATE:
            return replace(found, reason=Reason.ALLOWED, certificate=next(iter(certificates)))
        return found

    patch.setattr(admission, "decide", generous)


@hole("another adapter where none is certified", certificates_of_less_will_do)
def exact_set(world: World) -> None:
    assert Caller(world)(chat("finance+medical"), key("both")).status_code == 403
    assert not world.backend.asked


# 15. A merged adapter that outlives one of its grants.
def revoked_grants_count(patch: Patch, world: World) -> None:
    def all_of_them(tenant: Any, request: Any, grants: Any, *rest: Any) -> tuple[Any, ...]:
        return tenant, request, [replace(each, revoked=None) for each in grants], *rest

    decide_with(patch, all_of_them)


@hole("a merge that outlives a grant", revoked_grants_count)
def both_grants_now(world: World) -> None:
    assert Caller(world)(chat("legal+medical"), key("firm")).status_code == 200
    world.store.held = [
        replace(each, revoked=NOW) if "legal" in each.domains else each for each in world.store.held
    ]
    assert Caller(world)(chat("legal+medical"), key("firm")).status_code == 403
    assert Caller(world)(chat("medical"), key("firm")).status_code == 200


def only_the_beginning_is_checked(patch: Patch, world: World) -> None:
    async def nothing(self: Admission, admitted: Any) -> None:
        return None

    patch.setattr(Admission, "require_still", nothing)


@hole("a revocation inside a stream", only_the_beginning_is_checked)
def revoked_in_stream(world: World) -> None:
    world.limits = replace(world.limits, watch_seconds=0.01)
    world.backend.words, world.backend.pause = ("word ",) * 60, 0.002
    world.backend.before = lambda index: (
        world.store.change(key("hospital"), revoked=NOW) if index == 9 else None
    )
    *said, last = events(Caller(world)(chat(stream=True)).text)
    assert last != "[DONE]"
    assert last["error"]["code"] == "invalid_api_key"
    assert len(words(said).split()) < 50


# 16. joserfc's decode() does not check claims; algorithms that are confused; keys that a token brings.
def claims_are_not_checked(patch: Patch, world: World) -> None:
    from joserfc.jwt import JWTClaimsRegistry

    patch.setattr(JWTClaimsRegistry, "validate", lambda self, claims: None)
    patch.setattr(
        admission, "authorisation", lambda *given: Decision(Reason.NO_GRANT, str(given[0] and given[0].id))
    )
    decide_with(
        patch,
        lambda tenant, request, *rest: (
            tenant,
            replace(request, credentials=tuple(replace(each, expires=None) for each in request.credentials)),
            *rest,
        ),
    )


def token_statuses(world: World, made: list[str]) -> list[int]:
    own = Credentials(world.store, tokens.provider())

    async def asked() -> list[int]:
        async with calling(world.services(credentials=own)) as client:
            return [
                (await client.post("/v1/chat/completions", json=chat(), headers=shown(each))).status_code
                for each in made
            ]

    return asyncio.run(asked())


@hole("a token that has expired or is for others", claims_are_not_checked)
def claims_hold(world: World) -> None:
    past = int(NOW.timestamp()) - 100
    made = [tokens.token(), tokens.token(exp=past), tokens.token(iss="x"), tokens.token(aud="x")]
    assert token_statuses(world, made) == [200, 401, 401, 401]


def algorithms_are_the_tokens(patch: Patch, world: World) -> None:
    claims = Provider.claims

    def trusting(self: Provider, token: str, now: Any) -> Any:
        said, _, signature = token.rpartition(".")
        head, body = (json.loads(urlsafe_b64decode(part + "==")) for part in said.split("."))
        if head["alg"] == "HS256" and urlsafe_b64decode(signature + "==") == tokens.public_hash(said):
            return body
        return body if head["alg"].lower() == "none" else claims(self, token, now)

    patch.setattr(Provider, "claims", trusting)


@hole("a token whose algorithm is its own choice", algorithms_are_the_tokens)
def fixed_algorithms(world: World) -> None:
    made = [tokens.signed_with_the_public_key(), tokens.unsigned(), tokens.unsigned("None")]
    assert token_statuses(world, made) == [401] * 3


def keys_are_the_tokens(patch: Patch, world: World) -> None:
    claims = Provider.claims

    def trusting(self: Provider, token: str, now: Any) -> Any:
        own = tokens.key("stranger").as_dict(private=False)
        return claims(replace(self, keys=lambda: {"keys": [{**own, "kid": "idp"}]}), token, now)

    patch.setattr(Provider, "claims", trusting)


@hole("a token that brings its key", keys_are_the_tokens)
def fixed_keys(world: World) -> None:
    made = [tokens.bringing_its_own_key(field) for field in ("jwk", "jku", "x5u")]
    assert token_statuses(world, made) == [401] * 3


# 17. A client's cache_salt that equals an adapter's name.
def salts_are_names(patch: Patch, world: World) -> None:
    patch.setattr(remote.Remote, "salt", lambda self, certified, tenant: certified.adapter)


@hole("a salt that a client can name", salts_are_names)
def own_salts(world: World) -> None:
    backend = remote_of(StandIn([*NAMES]))
    salts = [backend.salt(each.facts, tenant) for each in CERTIFICATES for tenant in ("hospital", "firm")]
    assert len({*salts, *NAMES}) == len(salts) + len(NAMES)


# 18. An external cache whose key omits the adapter.
def outer_caches_are_taken(patch: Patch, world: World) -> None:
    async def nothing(*given: Any) -> None:
        return None

    patch.setattr(upstream, "_require_no_outer_cache", nothing)


@hole("a cache outside the upstream", outer_caches_are_taken)
def no_outer_cache(world: World) -> None:
    with pytest.raises(upstream.GatewayError):
        started(StandIn([*NAMES], metrics='vllm:cache_config_info{kv_connector="LMCacheConnectorV1"} 1'))


# 19. An upstream that accepts lists of adapters a request.
def lists_are_taken(patch: Patch, world: World) -> None:
    async def nothing(*given: Any) -> None:
        return None

    patch.setattr(upstream, "_require_single", nothing)


@hole("an upstream that combines adapters", lists_are_taken)
def no_combining(world: World) -> None:
    with pytest.raises(upstream.GatewayError, match="two adapters"):
        started(StandIn([*NAMES], combining=True))
