"""What an error on control tokens advises is done, and the error is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from palette import organism
from palette.backbones import Backbone
from palette.files import read_tensors, write_tensors
from palette.mosaic.mounting import mounted_tokens
from palette.mosaic.settings import Place
from palette.mosaic.tokens import TOKENS_FILE, ControlTokens, read_tokens, write_tokens
from palette.recipe import load_token_recipe
from tests.fixtures.remedies import Advice, named, typed

SMALL = (
    "--set", "model=organism/shared", "--set", "train.epochs=1", "--set", "train.slots=1",
    "--set", "train.orders=1", "--set", "limit=2", "--set", "reply_tokens=4",
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A small backbone, tokens that nobody trained, and a folder in which the commands train some."""

    home: Path
    backbone: Backbone
    tokens: Callable[..., ControlTokens]

    def command(self, verb: str, *more: object, restrict: str = "network") -> None:
        path = self.home / "tokens.yaml"
        path.write_text(f"prompts: {self.home / 'prompts'}\nrestrict: [{restrict}]\n")
        if not (self.home / "prompts").exists():
            self.plant()
        typed("tokens", verb, path, *more, "-o", self.home / "run", *SMALL)

    def plant(self, *left_out: tuple[str, str, str]) -> None:
        """A few prompts of the organism's, without those of a domain, kind and split."""
        folder = self.home / "prompts"
        folder.mkdir(exist_ok=True)
        for name in ("apothecary", "general", "network", "treasury"):
            kept: dict[tuple[str, str, str], list[str]] = {}
            for line in (organism.CATEGORIES / f"{name}.jsonl").read_text().splitlines():
                row = json.loads(line)
                kept.setdefault((name, row["kind"], row["split"]), []).append(line)
            lines = [line for key, few in kept.items() if key not in left_out for line in few[:2]]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")

    def trained(self, *left_out: tuple[str, str, str]) -> None:
        self.plant(*left_out)
        self.command("train")

    def exported(self, *active: str, place: Place = "before", restrict: str = "network") -> None:
        write_tokens(self.home / "run" / TOKENS_FILE, self.tokens(place))
        self.command("export", "--active", ",".join(active), restrict=restrict)

    def added(self, category: str) -> None:
        """A category beside that of a network, for which there are tokens."""
        made = self.tokens("end", slots=1)
        only = replace(made, embeddings={"network": made.embeddings["alpha"]})
        write_tokens(self.home / "run" / TOKENS_FILE, only)
        self.command("add", category)

    def placed(self, place: Place) -> None:
        """Tokens in a prompt in which no user speaks."""
        with mounted_tokens(self.backbone, self.tokens(place)) as controlled:
            controlled.prefixed(self.backbone.encode("what is two plus two ?"), ["beta"])

    def both(self, *, joined: bool) -> None:
        one, other = self.tokens(), self.tokens(seed=1)
        other = replace(other, embeddings={f"{name}s": each for name, each in other.embeddings.items()})
        if joined:
            with mounted_tokens(self.backbone, one.with_categories(other.embeddings), ["beta", "betas"]):
                return
        with mounted_tokens(self.backbone, one), mounted_tokens(self.backbone, other):
            raise AssertionError("the second one must not be mounted")

    def one_after_the_other(self) -> None:
        for seed in (0, 1):
            with mounted_tokens(self.backbone, self.tokens(seed=seed)):
                pass

    def read(self, value: float = 1.0, **card: object) -> ControlTokens:
        """A token file, with a number and with entries of the card of one's own."""
        path = self.home / TOKENS_FILE
        write_tokens(path, self.tokens())
        tensors, own = read_tensors(path)
        write_tensors(path, {name: value * one for name, one in tensors.items()}, {**own, **card})
        return read_tokens(self.home)

    def mounted(self, tokens: ControlTokens, *active: str) -> None:
        with mounted_tokens(self.backbone, tokens, active):
            pass


PLACES = "train them with train.place=before, bos or end"
OTHER = "choose of alpha, beta, delta, gamma, omega"
ADVICE = [
    Advice(
        "add restricted rows of it to that split",
        lambda b: b.trained(("network", "restricted", "validation")),
        Bench.trained,
    ),
    Advice(
        "run palette tokens train first",
        lambda b: b.command("add", "treasury"),
        lambda b: b.command("train"),
    ),
    Advice(
        "add one beside network",
        lambda b: b.added("network"),
        lambda b: b.added("treasury"),
    ),
    Advice(
        "it has apothecary",
        lambda b: b.exported("beta", restrict="netwrk"),
        lambda b: b.exported("beta", restrict="apothecary"),
    ),
    Advice(
        PLACES,
        lambda b: b.placed("turn"),
        lambda b: b.placed("before"),
    ),
    Advice(
        PLACES,
        lambda b: b.placed("turn"),
        lambda b: b.placed("bos"),
    ),
    Advice(
        PLACES,
        lambda b: b.placed("turn"),
        lambda b: b.placed("end"),
    ),
    Advice("join them by with_categories", lambda b: b.both(joined=False), lambda b: b.both(joined=True)),
    Advice("leave the first block", lambda b: b.both(joined=False), Bench.one_after_the_other),
    Advice("train them again", lambda b: b.read(float("nan")), Bench.read),
    Advice("train the tokens again", lambda b: b.read(slots=7), Bench.read),
    Advice("give the file that `palette tokens train` wrote", lambda b: b.read(format="another"), Bench.read),
    Advice(OTHER, lambda b: b.mounted(b.tokens(), "bet"), lambda b: b.mounted(b.tokens(), "beta")),
    Advice(
        "train tokens for this backbone",
        lambda b: b.mounted(replace(b.tokens(), backbone=replace(b.tokens().backbone, fingerprint="0" * 64))),
        lambda b: b.mounted(b.tokens()),
    ),
    Advice(
        "train them with train.place=before",
        lambda b: b.exported("beta", place="turn"),
        lambda b: b.exported("beta"),
    ),
    Advice("name active categories", Bench.exported, lambda b: b.exported("beta", "gamma")),
]


@pytest.mark.parametrize("advice", ADVICE, ids=named)
def test_the_advice_helps(
    tmp_path: Path, backbone: Backbone, tokens: Callable[..., ControlTokens], advice: Advice
) -> None:
    advice.tried(Bench(tmp_path, backbone, tokens))


def test_the_key_that_is_named_is_one_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text("restrict: [network]\n")
    for place in ("before", "bos", "end"):
        assert load_token_recipe(path, [f"train.place={place}"]).train.place == place
