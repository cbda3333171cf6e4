"""What files say now, and what stays where a new one does not hold."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from palette.certificates.revocations import Revocations, write_revocations
from palette.certificates.statements import BUNDLE
from palette.errors import GatewayError
from palette.gateway.identity import read_provider
from palette.gateway.limits import Limits
from palette.gateway.trusting import Catalogue, TrustingStore, faults_of, renew, served, shelved
from palette.gateway.watched import Watched
from tests.certificates.conftest import (
    BACKBONE,
    NOW,
    TERMS,
    certify,
    crowd,
    failing,
    good,
    office,
    parts,
    report,
    run,
    sections,
)
from tests.gateway import tokens
from tests.gateway.calls import METRICS_TOKEN, calling, shown
from tests.gateway.fakes import Words, World

__all__ = ["certify", "crowd", "failing", "good", "office", "parts", "report", "run", "sections"]


def number(path: Path) -> int:
    if not path.read_text().isdecimal():
        raise GatewayError("a file must be a number", got="another")
    return int(path.read_text())


class Forgetful(Watched[int]):
    """Keeps nothing of a file that held."""

    def __call__(self) -> int:
        self._known = None
        return super().__call__()


def the_last_one_stays(kind: type[Watched[int]], file: Path) -> None:
    file.write_text("1")
    watched = kind(file, number, lasting=True)
    assert (watched(), watched.fault) == (1, None)
    file.write_text("broken")
    assert [watched() for _ in range(3)] == [1, 1, 1]
    assert "must be a number" in watched.fault
    file.write_text("27")
    assert (watched(), watched.fault) == (27, None)
    file.unlink()
    assert watched() == 27
    assert watched.fault


def test_what_held_stays_until_another_holds_and_the_log_says_it_once(tmp_path, caplog):
    the_last_one_stays(Watched, tmp_path / "file")
    assert [each.levelname for each in caplog.records] == ["ERROR", "ERROR"]
    with pytest.raises(GatewayError):
        the_last_one_stays(Forgetful, tmp_path / "file")


def test_the_first_one_must_hold_and_what_does_not_last_raises(tmp_path):
    file = tmp_path / "file"
    file.write_text("broken")
    with pytest.raises(GatewayError):
        Watched(file, number, lasting=True)()
    file.write_text("1")
    watched = Watched(file, number)
    assert watched() == 1
    file.write_text("broken")
    with pytest.raises(GatewayError):
        watched()


def test_a_provider_s_new_keys_are_believed_and_a_broken_file_is_not(tmp_path):
    file = tmp_path / "jwks.json"

    def write(name: str) -> None:
        file.write_text(json.dumps({"keys": [tokens.key(name).as_dict(private=False)]}))

    def known(signer: str) -> bool:
        token = tokens.token({"kid": signer}, tokens.key(signer))
        return provider.claims(token, tokens.NOW) is not None

    write("idp")
    provider = read_provider(tokens.ISSUER, tokens.AUDIENCE, file, ("ES256",))
    assert (known("idp"), known("next")) == (True, False)
    file.write_text('{"keys": []}')
    assert (known("idp"), known("next")) == (True, False)
    assert len(faults_of(provider)) == 1
    write("next")
    assert (known("idp"), known("next")) == (False, True)
    assert not faults_of(provider)


def test_an_earlier_or_broken_list_of_revocations_takes_nothing_back(tmp_path, office):
    file, first, second = tmp_path / "revoked.json", "a" * 64, "b" * 64
    lists = [Revocations().revoked(first, NOW, "lost")]
    lists.append(lists[0].revoked(second, NOW, "lost"))

    def write(found: Revocations) -> None:
        write_revocations(file, found.signed(office.certifier, NOW))

    class Store:
        def revoked_certificates(self) -> dict[str, Any]:
            return {}

    write(lists[0])
    authority = TrustingStore(Store(), lambda: office.ring, file)
    assert {*authority.revoked_certificates()} == {first}
    write(lists[1])
    assert {*authority.revoked_certificates()} == {first, second}
    for break_it in (lambda: write(lists[0]), lambda: file.write_text("{"), file.unlink):
        break_it()
        assert {*authority.revoked_certificates()} == {first, second}
        assert len(authority.faults) == 1
    write(lists[1].revoked("c" * 64, NOW, "lost"))
    assert len(authority.revoked_certificates()) == 3
    assert not authority.faults


def test_a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not(run, certify, office):
    certify(run)
    shelf = shelved([run], lambda: office.ring, None)
    (before,) = shelf.taken
    backend, catalogue = Words(backbone=BACKBONE), Catalogue([served(before)])
    asyncio.run(backend.start(catalogue.certificates))

    def looked() -> str:
        asyncio.run(renew(shelf, backend, catalogue))
        assert [each.facts.id for each in catalogue.certificates] == [each.id for each in shelf.taken]
        return shelf.taken[0].id

    assert looked() == before.id
    bundle = (run / BUNDLE).read_text()
    (run / BUNDLE).write_text("{")
    assert looked() == before.id
    assert len(shelf.faults) == 1
    later = replace(TERMS, issued=NOW + timedelta(hours=1))
    backend.failing = True
    certify(run, later)
    assert [looked(), looked()] == [before.id] * 2, "what the backend cannot serve is not served"
    assert len(shelf.faults) == 1
    backend.failing = False
    (run / BUNDLE).write_text(bundle)
    assert looked() == before.id
    assert not shelf.faults
    certify(run, later)
    assert looked() != before.id
    assert backend.certificates[-1].facts.id == shelf.taken[0].id
    assert not shelf.faults


def test_the_gateway_looks_again_and_tells_what_it_does_not_take(world: World):
    looks: list[int] = []

    async def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            raise OSError("the folder is gone")

    async def asked() -> str:
        services = world.services(
            renew=look, faults=lambda: ["a bundle is broken"], limits=Limits(renew_seconds=0.01)
        )
        async with calling(services) as client:
            while len(looks) < 3:
                await asyncio.sleep(0.01)
            return (await client.get("/metrics", headers=shown(METRICS_TOKEN))).text

    assert "palette_files_not_taken 1.0" in asyncio.run(asked())
