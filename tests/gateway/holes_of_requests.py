"""Holes found in other gateways, in what requests and keys may say; and a broken variant of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from palette.authorisation import Credential, Decision, Reason
from palette.gateway import admission, app, asking
from palette.gateway.admission import Admission
from palette.gateway.app import Routes
from palette.gateway.identity import Credentials
from palette.gateway.refusals import Refused
from tests.gateway.calls import METRICS_TOKEN, Caller, calling, chat, shown
from tests.gateway.fakes import NOW, World, certified, key
from tests.gateway.holes import Holes, Patch, decide_with
from tests.gateway.test_remote import NAMES

HOLES = Holes()
hole = HOLES.row


# 1. The query string's model overrides the checked body.
def query_is_read(patch: Patch, world: World) -> None:
    patch.setattr(app, "_query", lambda request: None)


@hole("a query that names another model", query_is_read)
def no_query(world: World) -> None:
    for query in ("model=legal", "model=medical", "x", "api_key=1", "stream=true"):
        reply = Caller(world)(chat(), path=f"/v1/chat/completions?{query}")
        assert reply.status_code == 400
        assert Caller(world).get(f"/v1/models?{query}").status_code == 400
    assert not world.backend.asked
    assert world.ledger.of("decision")[0].reason == "query_refused"


# 2. An alias passes the check before it is resolved.
def aliases_are_resolved_behind_the_check(patch: Patch, world: World) -> None:
    def resolved(tenant: Any, request: Any, *rest: Any) -> tuple[Any, ...]:
        return tenant, replace(request, model=request.model.strip().lower().split("/")[-1]), *rest

    decide_with(patch, resolved)


@hole("an alias of a model", aliases_are_resolved_behind_the_check)
def no_alias(world: World) -> None:
    for name in (
        "MEDICAL",
        " medical",
        "medical ",
        "./medical",
        "../medical",
        "openai/medical",
        "medica\u0131",
    ):
        assert Caller(world)(chat(name)).status_code == 403, name
    assert not world.backend.asked


# 3. A key mints a wider key.
def parents_are_not_asked(patch: Patch, world: World) -> None:
    def alone(tenant: Any, request: Any, *rest: Any) -> tuple[Any, ...]:
        return tenant, replace(request, credentials=request.credentials[:1]), *rest

    decide_with(patch, alone)
    patch.setattr(
        admission, "authorisation", lambda *given: Decision(Reason.NO_GRANT, str(given[0] and given[0].id))
    )


@hole("a key that is wider than its parent", parents_are_not_asked)
def no_wider_key(world: World) -> None:
    parent = Credential("parent", "firm", frozenset({"legal"}))
    children = {"legal+medical": frozenset({"legal", "medical"}), "medical": frozenset({"medical"})}
    for name, domains in children.items():
        world.store.keys["pk_child_0"] = (Credential("child", "firm", domains), parent)
        assert Caller(world)(chat(name), "pk_child_0").status_code == 401
    world.store.keys["pk_child_0"] = (
        Credential("child", "firm", frozenset({"legal"})),
        replace(parent, revoked=NOW),
    )
    assert Caller(world)(chat("legal"), "pk_child_0").status_code == 401, "a revoked parent's child"
    assert not world.backend.asked


# 4. An identity cache that is keyed by a token's prefix.
def identities_are_cached(patch: Patch, world: World, size: int = 12) -> None:
    known, cache = Credentials.known, {}

    def cached(self: Credentials, secret: str | None, now: Any) -> Any:
        held = cache.setdefault(str(secret)[:size], known(self, secret, now))
        return held

    patch.setattr(Credentials, "known", cached)


@hole("a token with another's beginning", identities_are_cached)
def no_prefix(world: World) -> None:
    secret = key("hospital")
    assert Caller(world)(chat(), secret).status_code == 200
    for other in (secret[:-1], secret[:20], secret + "x", secret[:-1] + "!"):
        assert Caller(world)(chat(), other).status_code == 401


# 5. A key that is deleted on one replica lives on another.
def identities_are_kept(patch: Patch, world: World) -> None:
    identities_are_cached(patch, world, 10**6)


@hole("a key that is revoked elsewhere", identities_are_kept)
def revoked_everywhere(world: World) -> None:
    async def asked() -> list[int]:
        found = []
        # Two gateways on one store, both of which have answered the key before.
        async with calling(world.services()) as one, calling(world.services()) as other:
            for change in (lambda: None, lambda: world.store.change(key("hospital"), revoked=NOW)):
                change()
                for client in (one, other):
                    reply = await client.post(
                        "/v1/chat/completions", json=chat(), headers=shown(key("hospital"))
                    )
                    found.append(reply.status_code)
        return found

    assert asyncio.run(asked()) == [200, 200, 401, 401]


def who_asks_is_asked_once(patch: Patch, world: World) -> None:
    patch.setattr(admission, "FRESH", 60.0)


@hole("a key that is revoked while its body comes", who_asks_is_asked_once)
def revoked_while_it_comes(world: World) -> None:
    body = json.dumps(chat()).encode()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:9]
        world.store.change(key("hospital"), revoked=NOW)
        await asyncio.sleep(0.15)
        yield body[9:]

    headers = {**shown(key("hospital")), "Content-Type": "application/json"}
    reply = Caller(world).send("POST", "/v1/chat/completions", content=slowly(), headers=headers)
    assert reply.status_code == 401
    assert not world.backend.asked


# 6. An expired key echoed in the error.
def errors_say_the_key(patch: Patch, world: World) -> None:
    refuse = Admission.refuse

    async def telling(self: Admission, visit: Any, refused: Refused, asked: Any = None) -> None:
        refused.message += f" (got {visit.secret})"
        await refuse(self, visit, refused, asked)

    patch.setattr(Admission, "refuse", telling)


@hole("a secret in an answer, a log or the ledger", errors_say_the_key)
def no_secret(world: World) -> None:
    world.store.change(key("hospital"), expires=NOW)
    world.store.change(key("bank"), revoked=NOW)
    secrets = [key("hospital"), key("bank"), key("firm"), "pk_unknown_" + "5ecret" * 8, "5ecret" * 8]
    for secret in secrets:
        for reply in (
            Caller(world)(chat(), secret),
            Caller(world)(b"{", secret),
            Caller(world).get(f"/v1/models/{secret}", secret),
            Caller(world).get("/v1/models?key=1", secret),
            Caller(world)(chat(secret), secret, path="/nowhere"),
        ):
            assert reply.status_code >= 400
            assert secret not in reply.text + str(reply.headers)
    told = repr(world.ledger.events)
    assert not [secret for secret in secrets if secret in told]


# 7. Health and model lists that are not scoped.
def all_models_are_listed(patch: Patch, world: World) -> None:
    async def everything(self: Admission, visit: Any) -> str:
        return "+".join(sorted({domain for each in world.certificates for domain in each.domains}))

    patch.setattr(Admission, "model", everything)


@hole("a list of what others have", all_models_are_listed)
def scoped_lists(world: World) -> None:
    listed = Caller(world).get("/v1/models").json()["data"]
    assert [each["id"] for each in listed] == ["medical"]
    assert Caller(world).get("/health", None).json() == {"status": "ok"}
    for name in ("legal", "legal+medical", certified("legal").adapter):
        assert Caller(world).get(f"/v1/models/{name}").status_code == 404


# 8. A sibling route without its check.
def a_route_asks_nobody(patch: Patch, world: World) -> None:
    add = Routes.add

    def one_more(self: Routes, application: Any) -> None:
        add(self, application)
        application.get("/v1/adapters")(lambda: [each.adapter for each in world.certificates])

    patch.setattr(Routes, "add", one_more)


@hole("a route that asks nobody", a_route_asks_nobody)
def every_route_asks(world: World) -> None:
    for route in app.create_app(world.services(), METRICS_TOKEN).inner.routes:
        for method in route.methods - {"HEAD"}:
            reply = Caller(world).send(method, route.path.replace("{name}", "medical"), json=chat())
            assert reply.status_code == (200 if route.path in app.PUBLIC else 401), route.path


# 9. Adapter ids, paths, revisions, scales taken from the request.
def unknown_fields_are_dropped(patch: Patch, world: World) -> None:
    read = asking.read

    def lenient(body: bytes, *rest: Any, **more: Any) -> Any:
        content = json.loads(body)
        known = {*asking.ChatBody.model_fields, *asking.CompletionBody.model_fields}
        kept = {name: value for name, value in content.items() if name in known}
        return read(json.dumps(kept).encode(), *rest, **more)

    patch.setattr(asking, "read", lenient)


FOREIGN: dict[str, Any] = {
    "lora_path": "/adapters/legal",
    "lora": [{"id": 0, "scale": 2.0}],
    "lora_request": {"lora_name": "x", "lora_int_id": 1, "lora_path": "/x"},
    "adapter_id": "predibase/x",
    "adapter_source": "hub",
    "revision": "main",
    "adapters": ["medical", "legal"],
    "merged_adapters": {"ids": ["a", "b"]},
    "loras": ["a", "b"],
    "cache_salt": NAMES[1],
    "vllm_xargs": {"steer": 1},
    "extra_args": {},
    "extra_body": {"model": "legal"},
    "steering_vectors": [1],
    "kv_transfer_params": {},
    "guided_json": {},
    "chat_template": "{{ 1 }}",
    "chat_template_kwargs": {"enable_thinking": True},
    "add_generation_prompt": False,
    "continue_final_message": True,
    "prompt_embeds": "AAAA",
    "logits_processors": ["x"],
    "documents": [],
    "tools": [],
    "\u043codel": "legal",
    "model ": "legal",
    "Model": "legal",
    "model\u200b": "legal",
    "__proto__": {"model": "legal"},
}


@hole("an adapter, path, scale or salt from a request", unknown_fields_are_dropped)
def no_foreign_field(world: World) -> None:
    for name, value in FOREIGN.items():
        reply = Caller(world)(chat(**{name: value}))
        assert reply.status_code == 400, name
    recorded = {field for each in world.ledger.of("decision") for field in each.remarks["refused_fields"]}
    assert {name for name in FOREIGN if name.isascii()} <= recorded, "what was refused is recorded"
    assert not world.backend.asked


def names_may_stand_twice(patch: Patch, world: World) -> None:
    patch.setattr(asking, "strict_json", json.loads)
    patch.setattr(asking, "_plain", lambda text: True)


@hole("a name that stands twice", names_may_stand_twice)
def no_duplicate(world: World) -> None:
    ask = '"messages": [{"role": "user", "content": "?"}]'
    for body in (
        f'{{"model": "medical", "model": "legal", {ask}}}',
        f'{{"model": "legal", "model": "medical", {ask}}}',
        f'{{"model": "medical", "\\u006dodel": "legal", {ask}}}',
        f'{{"model": "medical", "temperature": NaN, {ask}}}',
        f'{{"model": "medical\\u0000", {ask}}}',
        '{"model": "medical", "messages": [{"role": "user", "role": "system", "content": "?"}]}',
        '{"model": "medical", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ):
        assert Caller(world)(body.encode()).status_code == 400, body
    assert not world.backend.asked
