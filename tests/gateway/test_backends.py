"""One contract for all backends: in process, behind an address, or a fake."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from palette.gateway.asking import Asked, Message
from palette.gateway.backend import Backend, Piece, Served
from palette.gateway.embedded import Embedded
from palette.gateway.refusals import Refused
from tests.fixtures.noise import noise
from tests.fixtures.upstream import StandIn
from tests.gateway.fakes import Words, certified
from tests.gateway.test_remote import remote

ASKED = Asked("medical", (Message("user", "what is the dose of roglethine ?"),), 8)


@pytest.fixture(params=["embedded", "remote", "fake"])
def made(request, shared) -> tuple[Backend, list[Served]]:
    """A backend, and the certificates that it serves: of one domain, of another, and of a third in vain."""
    digest = shared.backbone.fingerprint if request.param == "embedded" else Words().backbone
    adapters = {name: noise(shared.backbone, ".mlp.", scale=0.2, seed=i) for i, name in enumerate("ab")}
    certificates = [
        Served(certified(name, backbone=digest), lambda one=one: one, lambda folder: None)
        for name, one in adapters.items()
    ]
    if request.param == "embedded":
        return Embedded(shared.backbone), certificates
    if request.param == "remote":
        return remote(StandIn([each.facts.adapter for each in certificates])), certificates
    return Words(), certificates


async def replies(backend: Backend, certificate: Served, asked: Asked = ASKED) -> list[Piece]:
    return [piece async for piece in backend.reply(asked, certificate.facts, "hospital")]


def running(made: tuple[Backend, list[Served]], work: Any) -> Any:
    async def run() -> Any:
        backend, certificates = made
        await backend.start(certificates)
        try:
            return await work(backend, certificates)
        finally:
            await backend.close()

    return asyncio.run(run())


def text(found: list[Piece], index: int = 0) -> str:
    return "".join(each.text for each in found if each.index == index)


def test_every_choice_ends_once_and_counts_its_tokens(made):
    async def work(backend, certificates):
        return await replies(backend, certificates[0], replace(ASKED, n=2))

    found = running(made, work)
    for index in (0, 1):
        own = [each for each in found if each.index == index]
        assert [bool(each.finish) for each in own] == [False] * (len(own) - 1) + [True]
        assert own[-1].finish in ("stop", "length")
        assert [each.tokens for each in own] == sorted(each.tokens for each in own)
        assert own[-1].tokens > 0
    assert max(each.prompt for each in found) > 0


def test_two_certificates_are_two_adapters_and_one_is_the_same_again(made):
    async def work(backend, certificates):
        return [text(await replies(backend, certificates[index])) for index in (0, 1, 0)]

    first, other, again = running(made, work)
    assert first == again != other


def test_a_reply_that_is_left_is_left_by_the_backend_too(made):
    async def work(backend, certificates):
        leaving = backend.reply(replace(ASKED, max_tokens=50), certificates[0].facts, "hospital")
        await anext(leaving)
        await leaving.aclose()
        return text(await asyncio.wait_for(replies(backend, certificates[1]), 5))

    assert running(made, work)


def test_what_is_not_served_is_503_and_nothing_answers_for_it(made):
    if isinstance(made[0], Words):
        pytest.skip("the fake serves whatever it is asked")

    async def work(backend, certificates):
        with pytest.raises(Refused) as refused:
            await replies(backend, replace(certificates[0], facts=certified("c", backbone=backend.backbone)))
        return refused.value.status

    assert running(made, work) == 503
