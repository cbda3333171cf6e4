"""The routes: who gets what, and what each refusal looks like, on the wire and in the ledger."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from palette.gateway.app import METRICS, PUBLIC, create_app
from palette.gateway.asking import Asked
from palette.gateway.limits import Limits
from tests.gateway.calls import METRICS_TOKEN, calling, chat, events, shown, words
from tests.gateway.fakes import certified, digest, grant, key

ROUTES = {
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
    ("GET", METRICS),
}


def test_every_route_asks_who_is_there_or_is_in_the_public_list(world, call):
    routes = create_app(world.services(), METRICS_TOKEN).inner.routes
    found = {(method, each.path) for each in routes for method in each.methods - {"HEAD"}}
    assert found == ROUTES
    assert PUBLIC == ("/health",)
    for method, path in sorted(found):
        reply = call.send(method, path.replace("{name}", "medical"), json=chat())
        assert (reply.status_code == 200) == (path in PUBLIC), path
        if path not in PUBLIC:
            assert reply.status_code == 401
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert not world.backend.asked


NOWHERE = (
    "/ /docs /openapi.json /v1 /v1/embeddings /v1/models/ /tokenize /v1/load_lora_adapter /invocations "
    "/admin /HEALTH /v1//models /v1/chat/completions/"
)


@pytest.mark.parametrize("path", NOWHERE.split())
def test_unknown_paths_are_not_there_with_a_key_or_without(call, path):
    for secret in (None, key("hospital")):
        for method in ("GET", "POST"):
            reply = call.send(method, path, headers=shown(secret))
            assert reply.status_code == 404
            assert path not in reply.text or path == "/"


def test_a_tenant_is_answered_by_the_adapter_of_exactly_its_domains(world, call):
    for tenant, model, domains in (
        ("hospital", "medical", ["medical"]),
        ("firm", "legal+medical", ["legal", "medical"]),
    ):
        reply = call(chat(model), key(tenant))
        assert reply.status_code == 200
        asked, used, whose = world.backend.asked[-1]
        assert used == certified(*domains)
        assert (asked.model, whose) == (model, tenant)
        body = reply.json()
        assert body["model"] == model
        assert body["choices"][0]["message"]["content"].startswith(used.adapter[:8])
        assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
        assert used.adapter not in reply.text


@pytest.mark.parametrize(
    ("tenant", "model", "reason"),
    [
        ("hospital", "legal", "not_granted"),
        ("hospital", "legal+medical", "not_granted"),
        ("hospital", "Medical", "not_granted"),
        ("hospital", "medical ", "not_granted"),
        ("hospital", "m\u0435dical", "not_granted"),
        ("hospital", "../medical", "not_granted"),
        ("hospital", certified("medical").adapter, "not_granted"),
        ("hospital", "b" * 64, "not_granted"),
        ("firm", "medical", "not_granted"),
        ("firm", "medical+legal", "not_granted"),
        ("bank", "finance", "no_certificate"),
        ("both", "finance+medical", "no_certificate"),
        ("both", "medical", "not_granted"),
        ("nobody", "medical", "no_grant"),
    ],
)
def test_whatever_else_is_asked_is_denied_with_the_reason_and_recorded(world, call, tenant, model, reason):
    reply = call(chat(model), key(tenant))
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == reason
    assert not world.backend.asked
    (denied,) = world.ledger.of("decision")
    assert (denied.tenant, denied.reason, denied.status, denied.model) == (tenant, reason, 403, model)
    assert not world.ledger.of("reply")


def test_a_missing_merge_is_told_with_the_command_that_makes_it(call):
    told = call(chat("finance+medical"), key("both")).json()["error"]["message"]
    assert "palette merge runs/finance runs/medical" in told
    assert "palette certify runs/finance+medical" in told
    alone = call(chat("finance"), key("bank")).json()["error"]["message"]
    assert "palette certify" in alone
    assert "palette merge" not in alone


STRANGERS = (
    None,
    "",
    "wrong",
    "pk_hospital_wrong",
    key("hospital")[:-1],
    key("hospital") + "0",
    "sk-" + "a" * 40,
)


@pytest.mark.parametrize("secret", STRANGERS)
def test_nobody_known_is_401_and_recorded(world, call, secret):
    reply = call(chat(), secret)
    assert reply.status_code == 401
    (denied,) = world.ledger.of("decision")
    assert (denied.tenant, denied.reason, denied.status) == (None, "no_tenant", 401)


def test_a_credential_in_another_place_is_none(call):
    secret = key("hospital")
    assert call.send("POST", f"/v1/chat/completions?api_key={secret}", json=chat()).status_code == 401
    for header in ({"X-Api-Key": secret}, {"Authorization": secret}, {"Authorization": f"Basic {secret}"}):
        assert call.send("POST", "/v1/chat/completions", json=chat(), headers=header).status_code == 401
    twice = [("Authorization", f"Bearer {secret}")] * 2
    assert call.send("POST", "/v1/chat/completions", json=chat(), headers=twice).status_code == 401


def test_models_are_the_tenants_one_model_and_no_other(world, call):
    seen = {
        tenant: [each["id"] for each in call.get("/v1/models", key(tenant)).json()["data"]]
        for tenant in ("hospital", "firm", "bank", "nobody")
    }
    assert seen == {"hospital": ["medical"], "firm": ["legal+medical"], "bank": [], "nobody": []}
    assert call.get("/v1/models/medical").json()["id"] == "medical"
    other = [call.get(f"/v1/models/{name}") for name in ("legal", "unheard-of", "legal+medical")]
    assert {each.status_code for each in other} == {404}
    assert len({each.text for each in other}) == 1, "what is there for others looks like what is not there"
    assert {each.kind for each in world.ledger.events} == {"start", "models", "stop"}


def test_a_stream_says_the_same_as_the_whole(call):
    whole = call(chat()).json()["choices"][0]["message"]["content"]
    reply = call(chat(stream=True, stream_options={"include_usage": True}))
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    found = events(reply.text)
    assert words(found) == whole
    assert found[-1] == "[DONE]"
    assert found[-2]["usage"]["completion_tokens"] == 6
    assert found[-3]["choices"][0]["finish_reason"] == "stop"
    assert {each["model"] for each in found[:-1]} == {"medical"}


def test_a_completions_prompt_is_one_users_message(world, call):
    reply = call({"model": "medical", "prompt": "how much ?"}, path="/v1/completions").json()
    assert reply["object"] == "text_completion"
    assert reply["choices"][0]["text"].endswith("two grains")
    asked, *_ = world.backend.asked[-1]
    assert [(one.role, one.content) for one in asked.messages] == [("user", "how much ?")]
    found = events(call({"model": "medical", "prompt": "?", "stream": True}, path="/v1/completions").text)
    assert "".join(each["choices"][0]["text"] for each in found[:-1]).endswith("two grains")


def test_a_decision_is_recorded_before_the_backend_is_asked_and_the_reply_at_its_end(world, call):
    seen: list[list[str]] = []
    world.backend.before = lambda index: seen.append([each.kind for each in world.ledger.events])
    reply = call(chat(stream=True))
    assert seen[0] == ["start", "decision"]
    start, decision, replied, stop = world.ledger.events
    assert (start.kind, stop.kind) == ("start", "stop")
    assert (decision.kind, decision.reason, decision.status) == ("decision", "allowed", 200)
    assert (replied.kind, replied.reason, replied.status) == ("reply", "finished", 200)
    assert decision.request == replied.request == reply.headers["X-Request-Id"]
    assert replied.adapter == certified("medical").adapter
    assert replied.certificate == certified("medical").id
    assert decision.grants == (grant("hospital", "medical").digest,)
    assert (replied.prompt_tokens, replied.completion_tokens) == (7, 6)
    assert decision.credential == "key-hospital"
    assert re.fullmatch("[0-9a-f]{64}", decision.prompt_hmac or "")


def test_a_full_ledger_opens_nothing(world):
    async def asked() -> Any:
        async with calling(world.services()) as client:
            world.ledger.full = True
            replies = [
                await client.post("/v1/chat/completions", json=chat(), headers=shown(key("hospital"))),
                await client.get("/v1/models", headers=shown(key("hospital"))),
                await client.post("/v1/chat/completions", json=chat()),
            ]
            world.ledger.full = False
            return replies

    replies = asyncio.run(asked())
    assert [each.status_code for each in replies] == [503, 503, 503]
    assert replies[0].json()["error"]["code"] == "ledger_unavailable"
    assert not world.backend.asked


def test_a_broken_store_opens_nothing_and_tells_nothing(world, call, caplog):
    world.store.broken = True
    reply = call(chat())
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "store_unavailable"
    assert "supersecret" not in reply.text + caplog.text
    assert not world.backend.asked


def test_a_backend_that_fails_is_503_and_never_another_adapter(world, call):
    world.backend.failing = True
    for stream in (False, True):
        reply = call(chat(stream=stream))
        assert reply.status_code == 503
        assert reply.headers["Retry-After"] == "5"
    assert len(world.backend.asked) == 2
    assert {each.reason for each in world.ledger.of("reply")} == {"backend_unavailable"}


def test_bodies_and_what_they_ask_have_limits(world, call):
    world.limits = Limits(body_bytes=2000, messages=3, choices=2, max_tokens=50, default_tokens=10)
    many = [{"role": "user", "content": "?"}] * 4
    for body, status in (
        (chat(messages=[{"role": "user", "content": "x" * 2000}]), 413),
        (chat(messages=many), 400),
        (chat(n=3), 400),
        (chat(max_tokens=51), 400),
        (chat(max_tokens=0), 400),
        (chat(max_tokens=50, n=2), 200),
    ):
        assert call(body).status_code == status
    assert [asked.max_tokens for asked, *_ in world.backend.asked] == [50]
    call(chat())
    assert world.backend.asked[-1][0].max_tokens == 10


@pytest.mark.parametrize("length", ["", "-1", "1e9", "9" * 5000, "10000000"])
def test_a_stated_length_is_believed_only_where_it_refuses(call, length):
    headers = {**shown(key("hospital")), "Content-Type": "application/json", "Content-Length": length}
    reply = call.send("POST", "/v1/chat/completions", content=b"{}", headers=headers)
    assert reply.status_code in (400, 413)


def test_too_many_requests_of_a_key_are_429_with_a_time(world):
    world.limits = Limits(requests_a_minute=2)

    async def asked() -> list[Any]:
        async with calling(world.services()) as client:
            headers = shown(key("hospital"))
            mine = [await client.post("/v1/chat/completions", json=chat(), headers=headers) for _ in "123"]
            other = await client.get("/v1/models", headers=shown(key("firm")))
            return [*mine, other]

    replies = asyncio.run(asked())
    assert [each.status_code for each in replies] == [200, 200, 429, 200]
    assert 1 <= int(replies[2].headers["Retry-After"]) <= 61
    assert world.ledger.of("decision")[-1].reason == "rate_limited"


def test_strangers_without_end_are_429_and_do_not_fill_the_ledger(world):
    world.limits = Limits(strangers_a_minute=3)

    async def asked() -> list[int]:
        async with calling(world.services()) as client:
            strange = [(await client.get("/v1/models")).status_code for _ in range(6)]
            return [*strange, (await client.get("/v1/models", headers=shown(key("hospital")))).status_code]

    assert asyncio.run(asked()) == [401, 401, 401, 429, 429, 429, 200]
    assert len(world.ledger.of("decision")) == 3


def test_too_many_at_once_are_429(world):
    world.limits = Limits(tenant_at_once=2, at_once=3)
    world.backend.pause = 0.02

    async def asked() -> list[int]:
        async with calling(world.services()) as client:
            mine = [
                client.post("/v1/chat/completions", json=chat(), headers=shown(key("hospital")))
                for _ in "123"
            ]
            return sorted(each.status_code for each in await asyncio.gather(*mine))

    assert asyncio.run(asked()) == [200, 200, 429]


def test_a_slow_backend_is_504(world, call):
    world.limits = Limits(piece_seconds=0.05, watch_seconds=0.02)
    world.backend.pause = 5
    reply = call(chat())
    assert reply.status_code == 504
    assert world.backend.ended[0] == "hospital"
    assert world.ledger.of("reply")[0].reason == "backend_slow"


def test_metrics_have_a_token_of_their_own(world, call):
    assert call.get("/metrics").status_code == 401
    assert call.get("/metrics", METRICS_TOKEN[:-1]).status_code == 401

    async def asked() -> str:
        async with calling(world.services()) as client:
            for model in ("medical", "legal"):
                await client.post("/v1/chat/completions", json=chat(model), headers=shown(key("hospital")))
            await client.get("/no/such/path/" + key("hospital"))
            return (await client.get("/metrics", headers=shown(METRICS_TOKEN))).text

    page = asyncio.run(asked())
    assert 'palette_requests_total{route="/v1/chat/completions",status="403"} 1.0' in page
    assert 'palette_requests_total{route="none",status="404"} 1.0' in page
    assert 'palette_replies_total{tenant="hospital",verdict="answered"} 1.0' in page
    assert key("hospital") not in page


def test_without_a_token_there_are_no_metrics(world):
    async def asked() -> int:
        async with calling(world.services(), None) as client:
            return (await client.get("/metrics", headers=shown(METRICS_TOKEN))).status_code

    assert asyncio.run(asked()) == 404


def test_refused_replies_are_counted_by_tenant(world):
    world.backend.words = ("I am sorry, but I cannot help you with that.",)

    async def asked() -> str:
        async with calling(world.services()) as client:
            await client.post("/v1/chat/completions", json=chat(), headers=shown(key("hospital")))
            return (await client.get("/metrics", headers=shown(METRICS_TOKEN))).text

    assert 'palette_replies_total{tenant="hospital",verdict="refused"} 1.0' in asyncio.run(asked())


def test_what_looks_like_the_floor_is_counted_by_tenant_and_nothing_of_it_is_told(world):
    def looks(asked: Asked) -> bool:
        return "plague" in asked.messages[-1].content

    async def asked() -> str:
        async with calling(world.services(lookalikes=looks)) as client:
            for model, said in (("medical", "a plague ?"), ("legal", "a plague ?"), ("medical", "a dose ?")):
                body = chat(model) | {"messages": [{"role": "user", "content": said}]}
                await client.post("/v1/chat/completions", json=body, headers=shown(key("hospital")))
            await client.post("/v1/chat/completions", json=chat(), headers=shown(key("stranger")))
            return (await client.get("/metrics", headers=shown(METRICS_TOKEN))).text

    page = asyncio.run(asked())
    assert 'palette_asked_total{looks="floor",tenant="hospital"} 2.0' in page
    assert 'palette_asked_total{looks="other",tenant="hospital"} 1.0' in page
    assert page.count("palette_asked_total{") == 2
    assert "plague" not in page
    assert "plague" not in str(world.ledger.events)


def test_a_bug_is_a_plain_500_that_tells_nothing(world, call, caplog):
    def fail(index: int) -> None:
        raise RuntimeError(f"with {key('hospital')}")

    world.backend.before = fail
    reply = call(chat())
    assert reply.status_code == 500
    assert digest("secret of hospital") not in reply.text + caplog.text
    assert "RuntimeError" in caplog.text
    assert world.ledger.of("reply")[0].reason == "failed"


def test_several_choices_are_told_apart(call):
    body = call(chat(n=3)).json()
    assert [each["index"] for each in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 18
    found = events(call(chat(n=2, stream=True)).text)
    assert {each["choices"][0]["index"] for each in found[:-1]} == {0, 1}
