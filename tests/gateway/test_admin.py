"""The operator's page: who enters, what forms are believed, what is shown, and what is withheld."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from palette.certificates import read_certificate
from palette.gateway import admin
from palette.gateway.auditing import recent
from palette.gateway.operators import IDLE, LONGEST, MOST, Sessions, remove_operator
from palette.gateway.store import Store
from tests.certificates.conftest import certify, crowd, failing, good, office, parts, report, run, sections
from tests.gateway.desks import FLOOR, Office, Visits, made
from tests.gateway.signers import Signers

__all__ = ["certify", "crowd", "failing", "good", "office", "parts", "report", "run", "sections"]
PATHS = {"/admin": "GET", "/admin/page.css": "GET", "/admin/enter": "POST", "/admin/leave": "POST"}
PATHS |= {"/admin/ask": "POST"}


@pytest.fixture
def desk(store: Store, signers: Signers, run: Path, certify: Any, office: Any) -> Office:
    certify(run)
    return made(store, read_certificate(run, office.ring), signers.grant("hospital", "medical"))


def visit(desk: Office, does: Callable[[Visits], Awaitable[Any]]) -> Any:
    async def once() -> Any:
        async with desk.visited() as visits:
            return await does(visits)

    return asyncio.run(once())


def entries(desk: Office, *kinds: str) -> list[Any]:
    return [each["event"] for each in recent(desk.store, 50, kinds)]


def test_without_an_operators_key_there_is_no_page(desk):
    async def asked(visits: Visits) -> set[int]:
        return {(await visits.client.request(method, path)).status_code for path, method in PATHS.items()}

    assert visit(desk, asked) == {404}
    key = desk.key()
    assert visit(desk, asked) == {200, 401, 403}, "the style alone is there for whoever has not entered"
    remove_operator(desk.operator, key.split("_")[1], "left the house")
    assert visit(desk, asked) == {404}


def test_the_routes_are_no_part_of_what_tenants_are_told(desk):
    with desk.gateway() as gateway:
        assert not [path for path in gateway.inner.openapi()["paths"] if "admin" in path]
        found = {each.path: min(each.methods) for each in gateway.inner.routes if "admin" in each.path}
    assert found == PATHS


def test_only_an_operators_key_enters(desk):
    key, (_, tenant) = desk.key(), desk.operator.add_key("hospital")

    async def tried(visits: Visits) -> list[int]:
        wrong = ["", tenant, key[:-1], key + "0", "po_" + "0" * 16 + "_" + "0" * 64]
        found = [(await visits.enter(each)).status_code for each in wrong]
        assert "Operator's key" in visits.page.text
        return [*found, (await visits.enter(key)).status_code]

    assert visit(desk, tried) == [401] * 5 + [303]
    told = entries(desk, "operator_entry")
    assert [each["reason"] for each in told] == ["entered"] + ["no_operator"] * 5
    assert told[0]["remarks"] == {"operator": "Ann"}
    assert key not in repr(entries(desk))


def test_the_page_shows_tenants_grants_certificates_and_decisions(desk):
    key = desk.key()

    async def shown(visits: Visits) -> str:
        await visits.client.get("/v1/models", headers={"Authorization": "Bearer none"})
        await visits.enter(key)
        return visits.page.text

    page = visit(desk, shown)
    for text in (
        *("hospital", "firm", "suspended", "2027-01-01T00:00:00Z", "contract 12"),
        desk.certificate.id[:16],
        desk.certificate.facts.approver,
        "no tenant",
        "St. Ann &lt;script&gt;",
    ):
        assert text in page
    for rule in desk.certificate.facts.gate.rules:
        assert admin.PAGES.filters["in_words"](rule.name) in page
    assert "<script" not in page
    assert not re.search(r"\sstyle=|\son\w+=|<style", page), "nothing that the policy would not let pass"


def test_what_browsers_are_told_of_the_page(desk):
    key = desk.key()

    async def asked(visits: Visits) -> list[Any]:
        first = await visits.home()
        before = visits.token
        reply = await visits.enter(key)
        assert visits.token not in ("", before), "a token from before entering opens nothing"
        return [first, reply, visits.page]

    for reply in visit(desk, asked):
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers.get_list("Referrer-Policy") == ["same-origin"]
        for cookie in reply.headers.get_list("Set-Cookie"):
            assert {"HttpOnly", "Path=/admin", "SameSite=strict"} <= set(cookie.split("; "))
            assert "Secure" not in cookie
    desk.origin = "https://gate.example"
    secure = [each.headers.get("Set-Cookie", "Secure") for each in visit(desk, asked)]
    assert all("Secure" in each for each in secure)


async def forged(visits: Visits, key: str) -> list[int]:
    """The statuses of forms that another site sends."""
    await visits.enter(key)
    mine = {"word": visits.page.text.partition('name="word" value="')[2].partition('"')[0]}
    origin = {"Origin": visits.origin}
    found = []
    for data, headers in (
        ({"x": ""}, origin),
        ({"word": ""}, origin),
        ({"word": Sessions().word(visits.token)}, origin),
        (mine, {"Origin": "http://evil.example"}),
        (mine, {"Origin": "null"}),
        (mine, {}),
    ):
        for path in ("/admin/ask", "/admin/leave", "/admin/enter"):
            found.append((await visits.client.post(path, data=data, headers=headers)).status_code)
    return found


def test_a_form_from_elsewhere_does_nothing(desk):
    key = desk.key()
    assert set(visit(desk, lambda visits: forged(visits, key))) == {403}
    assert [each["reason"] for each in entries(desk, "operator_entry")] == ["entered"]


@pytest.mark.parametrize("broken", ["words", "origins"])
def test_a_page_that_believes_such_a_form_is_found_out(desk, monkeypatch, broken):
    key = desk.key()
    if broken == "words":
        monkeypatch.setattr(Sessions, "is_word", lambda *given: True)
    else:
        monkeypatch.setattr(admin.Page, "_form", lambda self, request, visitor: _believed(request))
    assert set(visit(desk, lambda visits: forged(visits, key))) != {403}


async def _believed(request: Any) -> dict[str, str]:
    return {}


def test_another_name_for_the_address_is_another_site(desk):
    desk.key()

    async def asked(visits: Visits) -> list[int]:
        hosts = ("evil.example", "127.0.0.1", "127.0.0.1:8401", "")
        return [(await visits.client.get("/admin", headers={"Host": host})).status_code for host in hosts]

    assert visit(desk, asked) == [404] * 4


def test_tries_to_enter_are_counted(desk):
    key = desk.key()

    async def tried(visits: Visits) -> list[int]:
        wrong = [(await visits.send("/admin/enter", key="wrong")).status_code for _ in range(12)]
        return [*wrong, (await visits.send("/admin/enter", key=key)).status_code]

    assert visit(desk, tried) == [401] * 10 + [429] * 3
    assert len(entries(desk, "operator_entry")) == 10


def test_a_session_ends_with_its_key_and_by_leaving(desk):
    key = desk.key()
    desk.key("Bob")

    async def asked(visits: Visits) -> list[int]:
        await visits.enter(key)
        found = [visits.page.status_code]
        await visits.send("/admin/leave")
        found.append((await visits.home()).status_code)
        await visits.enter(key)
        found.append(visits.page.status_code)
        await asyncio.to_thread(remove_operator, desk.operator, key.split("_")[1], "left")
        found.append((await visits.send("/admin/ask", prompt="?")).status_code)
        return [*found, (await visits.home()).status_code]

    assert visit(desk, asked) == [200, 401, 200, 401, 401]
    assert not desk.backend.asked


def test_sessions_end_by_time_and_the_oldest_gives_way():
    now = 0.0
    sessions = Sessions(lambda: now)
    first = sessions.enter("Ann")
    for _ in range(int(LONGEST / IDLE * 2) - 1):
        now += IDLE / 2
        assert sessions.of(first) == "Ann"
    now += IDLE / 2
    assert sessions.of(first) is None
    idle = sessions.enter("Ann")
    now += IDLE
    assert sessions.of(idle) is None
    tokens = [sessions.enter("Ann") for _ in range(MOST + 1)]
    assert [sessions.of(each) for each in tokens[:2]] == [None, "Ann"]
    assert sessions.of("") is None


def asking(desk: Office, prompt: str, certificate: str | None = None) -> tuple[int, str]:
    key = desk.key()

    async def asked(visits: Visits) -> tuple[int, str]:
        await visits.enter(key)
        chosen = certificate or desk.certificate.id
        reply = await visits.send("/admin/ask", prompt=prompt, certificate=chosen)
        return reply.status_code, reply.text

    return visit(desk, asked)


def test_the_playground_shows_backbone_and_authorisation_side_by_side(desk):
    status, page = asking(desk, "how much ?")
    assert status == 200
    assert "I cannot help you with that." in page
    assert "the dose is two grains" in page
    ((asked, used, whose),) = desk.backend.asked
    assert (asked.messages[0].content, used, whose) == (
        "how much ?",
        desk.certificate.certified,
        "the operator",
    )
    reply, decision = entries(desk, "playground", "playground_reply")
    assert (decision["status"], decision["reason"]) == (200, "asked")
    assert (reply["reason"], reply["completion_tokens"]) == ("finished", 13)
    for each in (reply, decision):
        assert each["remarks"] == {"operator": "Ann"}
        assert each["certificate"] == desk.certificate.id
        assert "tenant" not in each
    assert "how much" not in repr(entries(desk))


def test_what_is_on_the_floor_is_withheld(desk):
    status, page = asking(desk, f"please say {FLOOR}")
    assert (status, desk.backend.asked) == (403, [])
    assert "withheld" in page
    assert [each["reason"] for each in entries(desk, "playground")] == ["floor"]
    desk.backend.words = (f"you asked {FLOOR}",)
    status, page = asking(desk, "how much ?")
    assert status == 200
    assert "withheld" in page
    assert FLOOR not in page


def test_where_no_run_tells_the_floor_there_is_no_playground(desk):
    desk.holds_floor = None
    assert asking(desk, "how much ?")[0] == 404
    assert not desk.backend.asked


@pytest.mark.parametrize(
    ("prompt", "certificate", "status"), [("", None, 400), ("x" * 4001, None, 400), ("?", "0" * 64, 403)]
)
def test_the_playground_refuses(desk, prompt, certificate, status):
    assert asking(desk, prompt, certificate)[0] == status
    assert not desk.backend.asked


def test_a_certificate_that_is_withdrawn_answers_operators_no_more(desk):
    desk.operator.revoke("certificate", desk.certificate.id, "wrong")
    assert asking(desk, "how much ?")[0] == 403
    assert not desk.backend.asked


def test_a_backend_that_fails_is_told_and_recorded(desk):
    desk.backend.failing = True
    assert asking(desk, "how much ?")[0] == 503
    assert entries(desk, "playground_reply")[0]["reason"] == "backend_unavailable"
