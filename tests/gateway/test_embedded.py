"""The backend in process: one adapter a batch, nothing carried over, and the backbone untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Certified
from palette.backbones.backbone import Backbone
from palette.backbones.generation import greedy_replies
from palette.backbones.scoring import padded
from palette.errors import GatewayError
from palette.gateway.asking import Asked, Message
from palette.gateway.backend import Canary, Served
from palette.gateway.embedded import Embedded
from palette.gateway.refusals import Refused
from tests.fixtures.noise import noise
from tests.gateway.fakes import certified

OPENING = "what is the dose of "
PROMPTS = [f"{OPENING}{name} ?" for name in ("roglethine", "plinaxol", "vermadine")]


@pytest.fixture(scope="module")
def backbone(shared) -> Backbone:
    return shared.backbone


@pytest.fixture(scope="module")
def adapters(backbone) -> dict[str, Adapter]:
    return {name: noise(backbone, ".mlp.", scale=0.2, seed=i) for i, name in enumerate(("medical", "legal"))}


def served(backbone: Backbone, name: str, adapter: Adapter, **more: Any) -> Served:
    return Served(facts(backbone, name), lambda: adapter, lambda folder: None, **more)


def facts(backbone: Backbone, name: str) -> Certified:
    return certified(name, backbone=backbone.fingerprint)


def asked(prompt: str, **more: Any) -> Asked:
    return Asked("medical", (Message("user", prompt),), more.pop("max_tokens", 12), **more)


@asynccontextmanager
async def running(backbone: Backbone, certificates: Sequence[Served], **more: Any) -> AsyncIterator[Embedded]:
    backend = Embedded(backbone, **more)
    await backend.start(certificates)
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture(scope="module")
def both(backbone, adapters) -> list[Served]:
    return [served(backbone, name, adapter) for name, adapter in adapters.items()]


async def said(backend: Embedded, name: str, question: Asked) -> str:
    found = [piece async for piece in backend.reply(question, facts(backend.model, name), "hospital")]
    assert found[-1].finish in ("stop", "length")
    assert not any(piece.finish for piece in found[:-1])
    return "".join(piece.text for piece in found)


def alone(backbone: Backbone, adapter: Adapter, prompt: str, limit: int = 12) -> str:
    """What the evaluation's own loop says with an adapter."""
    with mounted(backbone.model, adapter):
        ids = backbone.render([{"role": "user", "content": prompt}])
        return backbone.decode(greedy_replies(backbone, [ids], limit)[0])


def test_it_says_what_the_certified_adapter_says(backbone, adapters, both):
    async def replies() -> list[str]:
        async with running(backbone, both) as backend:
            return [await said(backend, name, asked(PROMPTS[0])) for name in adapters]

    expected = [alone(backbone, adapter, PROMPTS[0]) for adapter in adapters.values()]
    assert asyncio.run(replies()) == expected
    assert len({*expected, alone(backbone, Adapter({}, adapters["legal"].backbone, {}), PROMPTS[0])}) == 3


def test_operators_hear_the_backbone_bare_between_two_adapters(backbone, adapters, both):
    async def replies() -> list[str]:
        async with running(backbone, both) as backend:

            async def bare() -> str:
                said_bare = backend.bare(asked(PROMPTS[0]), facts(backbone, "medical"))
                return "".join([piece.text async for piece in said_bare])

            with_it = said(backend, "medical", asked(PROMPTS[0]))
            return list(
                await asyncio.gather(with_it, bare(), said(backend, "legal", asked(PROMPTS[0])), bare())
            )

    plain = alone(backbone, Adapter({}, adapters["legal"].backbone, {}), PROMPTS[0])
    first, second = (alone(backbone, adapter, PROMPTS[0]) for adapter in adapters.values())
    assert asyncio.run(replies()) == [first, plain, second, plain]


def test_an_adapter_is_added_while_others_are_served_and_one_that_lies_is_not(backbone, adapters, both):
    medical, legal = both
    lying = replace(legal, canaries=(Canary(tuple(range(3, 9)), (1, 2, 3)),))

    async def replies() -> list[str]:
        async with running(backbone, [medical]) as backend:
            first = asyncio.ensure_future(said(backend, "medical", asked(PROMPTS[0])))
            with pytest.raises(GatewayError, match="as it was certified"):
                await backend.add([lying])
            with pytest.raises(Refused):
                await said(backend, "legal", asked(PROMPTS[0]))
            await backend.add([legal])
            return [await first, await said(backend, "legal", asked(PROMPTS[0]))]

    assert asyncio.run(replies()) == [alone(backbone, one, PROMPTS[0]) for one in adapters.values()]


def test_a_b_a_with_a_shared_prefix_is_what_each_says_cold(backbone, adapters, both):
    order = ["medical", "legal", "medical", "legal", "medical"]
    prompts = [PROMPTS[index % 3] for index in range(len(order))]

    async def replies() -> list[str]:
        async with running(backbone, both) as backend:
            line = zip(order, prompts, strict=True)
            return list(await asyncio.gather(*[said(backend, name, asked(text)) for name, text in line]))

    cold = [alone(backbone, adapters[name], text) for name, text in zip(order, prompts, strict=True)]
    assert asyncio.run(replies()) == cold


def test_a_prefix_that_two_adapters_share_is_found_out(backbone, adapters, both, monkeypatch):
    """A broken variant: what a prompt left behind with one adapter is taken for another's."""
    from palette.backbones import stepping

    read, kept = stepping.prefilled, {}

    def remembered(backbone, batch, prefix):
        return kept.setdefault(tuple(batch.ids[0].tolist()), read(backbone, batch, prefix))

    monkeypatch.setattr(stepping, "prefilled", remembered)

    async def replies() -> list[str]:
        async with running(backbone, both) as backend:
            return [await said(backend, name, asked(PROMPTS[0])) for name in ("medical", "legal", "medical")]

    cold = [alone(backbone, adapters[name], PROMPTS[0]) for name in ("medical", "legal", "medical")]
    assert asyncio.run(replies()) != cold


def test_the_backbone_is_the_same_to_the_bit_while_and_after_adapters_are_served(backbone, both):
    ids = backbone.render([{"role": "user", "content": PROMPTS[0]}])
    batch = padded([ids], [0], backbone.pad, backbone.model.device)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return backbone.model(input_ids=batch.ids, attention_mask=batch.mask).logits

    before, weights = logits(), {name: one.clone() for name, one in backbone.model.named_parameters()}

    async def serve() -> None:
        async with running(backbone, both) as backend:
            await asyncio.gather(*[said(backend, name, asked(PROMPTS[1])) for name in ("medical", "legal")])

    asyncio.run(serve())
    assert torch.equal(before, logits())
    assert all(torch.equal(weights[name], one) for name, one in backbone.model.named_parameters())
    assert not any(module._forward_hooks for _, module in backbone.model.named_modules() if "mlp" in _)


def test_requests_of_one_adapter_grow_together_and_of_two_never(backbone, both, monkeypatch):
    import palette.gateway.embedded as module

    sizes: list[int] = []
    step = module.GrowingReplies.step
    monkeypatch.setattr(
        module.GrowingReplies, "step", lambda self: (sizes.append(len(self.rows)), step(self))[1]
    )

    async def serve(names: list[str]) -> None:
        async with running(backbone, both) as backend:
            await asyncio.gather(*[said(backend, name, asked(PROMPTS[0])) for name in names])

    asyncio.run(serve(["medical"] * 3))
    assert max(sizes) == 3
    sizes.clear()
    # Which of several comes first is nobody's to say.
    asyncio.run(serve(["medical", "legal"]))
    assert max(sizes) == 1, "the second waits for the first, whichever that is"


def test_one_more_than_may_wait_is_told_to_come_again(backbone, both):
    async def serve() -> list[Any]:
        async with running(backbone, both, together=1, waiting=1) as backend:
            many = [said(backend, "medical", asked(PROMPTS[0])) for _ in range(8)]
            return await asyncio.gather(*many, return_exceptions=True)

    found = asyncio.run(serve())
    refused = [each for each in found if isinstance(each, Refused)]
    assert refused
    assert {each.status for each in refused} == {429}
    assert len({each for each in found if isinstance(each, str)}) == 1


def test_an_adapter_that_does_not_load_is_unavailable_and_the_others_are_served(backbone, adapters, caplog):
    other = noise(backbone, ".mlp.", seed=7)
    wide = {name: replace(one, lora_A=one.lora_A[:, :1]) for name, one in other.modules.items()}
    broken = served(backbone, "legal", replace(other, modules=wide))

    async def serve() -> list[Any]:
        async with running(backbone, [served(backbone, "medical", adapters["medical"]), broken]) as backend:
            asking = [said(backend, name, asked(PROMPTS[0])) for name in ("medical", "legal")]
            return await asyncio.gather(*asking, return_exceptions=True)

    good, bad = asyncio.run(serve())
    assert good == alone(backbone, adapters["medical"], PROMPTS[0])
    assert (bad.status, bad.reason) == (503, "adapter_not_loaded")
    assert "is not served" in caplog.text


def test_canaries_are_asked_when_an_adapter_is_loaded(backbone, adapters, caplog):
    ids = backbone.render([{"role": "user", "content": PROMPTS[0]}])
    with mounted(backbone.model, adapters["medical"]):
        reply = greedy_replies(backbone, [ids], 6)[0]
    right, wrong = Canary(tuple(ids), tuple(reply)), Canary(tuple(ids), (*reply[:-1], reply[-1] + 1))
    certificates = [
        served(backbone, "medical", adapters["medical"], canaries=(right,)),
        served(backbone, "legal", adapters["medical"], canaries=(right, wrong)),
    ]

    async def serve() -> list[Any]:
        async with running(backbone, certificates) as backend:
            asking = [said(backend, name, asked(PROMPTS[0])) for name in ("medical", "legal")]
            return await asyncio.gather(*asking, return_exceptions=True)

    good, bad = asyncio.run(serve())
    assert isinstance(good, str)
    assert bad.status == 503
    assert "canary 1" in caplog.text


def test_a_certificate_of_another_backbone_is_not_loaded(backbone, adapters):
    foreign = Served(certified("medical"), lambda: adapters["medical"], lambda folder: None)

    async def serve() -> Any:
        async with running(backbone, [foreign]) as backend:
            return [piece async for piece in backend.reply(asked("?"), foreign.facts, "hospital")]

    with pytest.raises(Refused, match="cannot answer now"):
        asyncio.run(serve())


def test_whoever_goes_leaves_the_batch(backbone, both):
    async def serve() -> str:
        async with running(backbone, both, together=1) as backend:
            leaving = backend.reply(asked(PROMPTS[0], max_tokens=100), facts(backbone, "legal"), "firm")
            await anext(leaving)
            await leaving.aclose()
            return await asyncio.wait_for(said(backend, "medical", asked(PROMPTS[0])), 5)

    assert asyncio.run(serve())


def test_a_seed_draws_the_same_and_choices_differ(backbone, both):
    drawn = asked(PROMPTS[0], temperature=1.5, seed=11)

    async def serve() -> list[str]:
        async with running(backbone, both) as backend:
            return [await said(backend, "medical", one) for one in (drawn, drawn, replace(drawn, seed=12))]

    first, again, other = asyncio.run(serve())
    assert first == again != other


def test_stop_texts_end_a_reply_before_them(backbone, adapters, both):
    whole = alone(backbone, adapters["medical"], PROMPTS[0])
    stop = whole.split()[2]

    async def serve() -> str:
        async with running(backbone, both) as backend:
            return await said(backend, "medical", asked(PROMPTS[0], stop=(stop,)))

    assert asyncio.run(serve()) == whole[: whole.index(stop)]


def test_what_does_not_fit_is_400(backbone, both):
    async def serve(question: Asked) -> Any:
        async with running(backbone, both) as backend:
            return await said(backend, "medical", question)

    with pytest.raises(Refused, match="tokens together") as caught:
        asyncio.run(serve(asked(PROMPTS[0], max_tokens=10**6)))
    assert caught.value.status == 400


def test_a_certificates_own_system_prompt_stands_before_every_conversation(backbone, adapters):
    own = served(backbone, "medical", adapters["medical"], system="you are brief")

    async def serve(question: Asked) -> str:
        async with running(backbone, [own]) as backend:
            return await said(backend, "medical", question)

    told = replace(backbone, system="you are brief")
    with mounted(backbone.model, adapters["medical"]):
        ids = told.render([{"role": "user", "content": PROMPTS[0]}])
        expected = backbone.decode(greedy_replies(backbone, [ids], 12)[0])
    assert (
        asyncio.run(serve(asked(PROMPTS[0]))) == expected != alone(backbone, adapters["medical"], PROMPTS[0])
    )
    talk = (Message("system", "be long"), Message("user", PROMPTS[0]))
    with pytest.raises(Refused, match="send none"):
        asyncio.run(serve(replace(asked(PROMPTS[0]), messages=talk)))


def test_a_reply_of_no_stated_length_ends_where_the_context_does(backbone, both):
    async def serve(question: Asked) -> list[Any]:
        async with running(backbone, both) as backend:
            known = facts(backend.model, "medical")
            return [piece async for piece in backend.reply(question, known, "hospital")]

    question = replace(asked(PROMPTS[0], max_tokens=10**6), stated=False)
    found = asyncio.run(serve(question))
    assert found[-1].finish in ("stop", "length")
    assert found[-1].prompt + found[-1].tokens <= 256
