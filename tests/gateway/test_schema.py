"""The gateway against what its own OpenAPI document lets others send: never a 5xx."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palette.gateway.app import create_app
from palette.gateway.limits import Limits
from tests.gateway.calls import METRICS_TOKEN, calling, shown
from tests.gateway.fakes import World, key

schemathesis = pytest.importorskip("schemathesis")
requests = pytest.importorskip("requests")

FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
LIMITS = Limits(requests_a_minute=10**6, tenant_requests_a_minute=10**6, strangers_a_minute=10**6)
WORLD = World(limits=LIMITS)
APP = create_app(WORLD.services(), METRICS_TOKEN)
DOCUMENT = APP.inner.openapi()
OPERATIONS = [each.ok() for each in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]


def test_every_route_is_in_the_document():
    routes = {(method.lower(), each.path) for each in APP.inner.routes for method in each.methods - {"HEAD"}}
    assert {(each.method, each.path) for each in OPERATIONS} == routes


def answer(case) -> httpx.Response:
    asked = requests.Request(**case.as_transport_kwargs(base_url="http://gateway")).prepare()

    async def once() -> httpx.Response:
        async with calling(WORLD.services()) as client:
            return await client.request(
                asked.method, asked.url, content=asked.body, headers=dict(asked.headers)
            )

    return asyncio.run(once())


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
CASES = [(each, POSITIVE) for each in OPERATIONS]
# What has no body and no parameter can be asked in no wrong way.
CASES += [(each, NEGATIVE) for each in OPERATIONS if each.method == "post"]


@pytest.mark.parametrize(("operation", "mode"), CASES, ids=lambda each: getattr(each, "label", str(each)))
def test_no_request_of_the_document_is_a_5xx(operation, mode):
    secrets = st.sampled_from([key("hospital"), METRICS_TOKEN, "x"])

    @FEW
    @given(operation.as_strategy(generation_mode=mode), secrets)
    def run(case, secret):
        case.headers = {**(case.headers or {}), **shown(secret)}
        answered = answer(case)
        assert answered.status_code < 500
        if answered.status_code >= 400 and "json" in str(answered.headers.get("content-type")):
            assert "error" in answered.json()

    run()
