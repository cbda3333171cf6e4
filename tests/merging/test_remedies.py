"""What an error on merges advises is done, and the error is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.mounting import mounted
from palette.adapters.writing import WEIGHTS, write_adapter
from palette.files import read_tensors, write_tensors
from palette.merging import writing
from tests.fixtures.remedies import Advice, named, typed

Q, DOWN, HEAD = "layers.0.self_attn.q_proj", "layers.1.mlp.down_proj", "lm_head"
SHAPES = {f"model.{Q}": (32, 32), f"model.{DOWN}": (32, 48)}
TINY = BackboneIdentity("tiny")
SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A folder in which adapters are planted and merged by the command."""

    home: Path

    def plant(
        self,
        seed: int,
        shapes: Mapping[str, tuple[int, int]] = SHAPES,
        backbone: BackboneIdentity = TINY,
        prefix: str = "model.",
    ) -> Path:
        draw = torch.Generator().manual_seed(seed)
        modules = {
            name.replace("model.", prefix, 1): LoraModule(
                torch.randn(2, d_in, generator=draw), torch.randn(d_out, 2, generator=draw)
            )
            for name, (d_out, d_in) in shapes.items()
        }
        folder = self.home / f"a{seed}"
        write_adapter(folder, Adapter(modules, backbone, {"domains": [f"domain{seed}"]}))
        return folder

    @property
    def outs(self) -> list[Path]:
        """What was merged, in its order."""
        return sorted(self.home.glob("out-*"))

    def merge(self, *arguments: object) -> Path:
        out = self.home / f"out-{len(self.outs)}"
        typed("merge", *arguments, "-o", out)
        return out

    def pair(self, *options: object, **second: object) -> Path:
        """Two adapters merged, the second of them planted so."""
        return self.merge(self.plant(1), self.plant(2, **second), *options)  # type: ignore[arg-type]

    def recipe(self, *adapters: str, more: str = "") -> Path:
        """Planted adapters merged by a recipe, a line each."""
        path = self.home / "merge.yaml"
        lines = [f"  - {{path: a{number}{text}}}" for number, text in enumerate(adapters, start=1)]
        path.write_text("\n".join(["adapters:", *lines, more, ""]))
        return path

    def by_recipe(self, *adapters: str, more: str = "") -> Path:
        for seed in range(1, 1 + len(adapters)):
            self.plant(seed)
        return self.merge(self.recipe(*adapters, more=more))

    def model(self) -> Path:
        """The folder of a tiny backbone whose head is tied."""
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(self.home / "model")
        return self.home / "model"

    def into(self, *arguments: object) -> Path:
        """Planted adapters merged into the backbone's weights."""
        return self.merge("--into", self.home / "model", *arguments)

    def fused(self, layer: int = 1) -> Path:
        """An adapter of one module merged into a model of two layers."""
        self.model()
        return self.into(self.plant(1, {f"model.layers.{layer}.mlp.up_proj": (48, 32)}))

    def pickled(self) -> Path:
        """The backbone's folder as older versions of the library wrote it."""
        folder = self.model()
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
        return self.into(self.plant(1))

    def headed(self, *, without: bool) -> Path:
        """An adapter of the head merged into a model that has none of its own."""
        self.model()
        self.plant(1, {**SHAPES, HEAD: (50, 32)})
        return self.into(self.recipe(", modules: ['!lm_head']" if without else ""))

    def served(self) -> None:
        """The same adapter mounted."""
        model = LlamaForCausalLM.from_pretrained(self.model())
        with mounted(model, read_adapter(self.plant(1, {HEAD: (50, 32)}))):
            model(torch.tensor([[1, 2, 3]]))

    def twice(self, *options: object) -> Path:
        folder = self.plant(1)
        return self.merge(*[folder] * (1 if options else 2), *options)

    def halves(self, modules: str = "") -> Path:
        """An adapter that names its layers as two classes of the model do."""
        names = {f"{prefix}{Q}": (32, 32) for prefix in ("model.", "model.language_model.")}
        self.plant(1, names)
        return self.merge(self.recipe(modules))

    def averaged(self, first: float | None, count: int = 2, more: str = "method: regmean") -> Path:
        """Two adapters merged; ``count`` have moments, of many prompts or of one with such a first number."""
        told = []
        for seed in (1, 2):
            moments = {}
            for name, (_, d_in) in SHAPES.items():
                read = torch.randn(d_in, 200, generator=torch.Generator().manual_seed(seed))
                moments[name] = read @ read.T
                if first is not None:
                    moments[name] = torch.full((d_in, d_in), 2.0)
                    moments[name][0], moments[name][:, 0] = first, first
            save_file(moments, self.home / f"m{seed}.safetensors")
            told.append(f", moments: m{seed}.safetensors" if seed <= count else "")
        return self.by_recipe(*told, more=more)

    def again(self, *options: object) -> None:
        typed("reproduce", self.outs[-1] / WEIGHTS, *options)

    def moved(self) -> None:
        self.pair()
        (self.home / "a1").rename(self.home / "elsewhere")
        self.again()

    def older(self) -> None:
        """A merge that an older version wrote, made again by this one."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "VERSIONS", {"palette": "0.0.1"})
            self.pair()
        self.again()

    def older_again(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "VERSIONS", {"palette": "0.0.1"})
            self.again()

    def unmerged(self, member: str = "domain2", *options: object) -> None:
        typed("unmerge", self.pair(*options), member, "-o", self.home / "back")

    def shared(self) -> None:
        """A sum taken apart whose members have the same directions."""
        one, twin = self.plant(1), self.home / "twin"
        adapter = read_adapter(one)
        modules = {name: LoraModule(m.lora_A, 2 * m.lora_B) for name, m in adapter.modules.items()}
        write_adapter(twin, Adapter(modules, TINY, {"domains": ["twin"]}))
        typed("unmerge", self.merge(one, twin), "domain1", "-o", self.home / "back")

    def dissected(self, *, spoilt: bool) -> None:
        """A merge taken apart, of which a component was nulled."""
        out = self.pair()
        if spoilt:
            tensors, card = read_tensors(out / WEIGHTS)
            for tensor in tensors.values():
                tensor[:1] = 0
            write_tensors(out / WEIGHTS, tensors, card)
        typed("unmerge", out, "domain2", "-o", self.home / "back")


MOMENTS = "name a file of them for each adapter as moments in a merge recipe, or use another method"
DIGESTS = {"backbone": BackboneIdentity("tiny", "b" * 64)}
ADVICE = [
    Advice(
        "say so with --same-backbone",
        lambda b: b.pair(backbone=BackboneIdentity("small")),
        lambda b: b.pair("--same-backbone", backbone=BackboneIdentity("small")),
    ),
    Advice(
        "train one of them again on the other's backbone",
        lambda b: b.merge(b.plant(1, backbone=BackboneIdentity("tiny", "a" * 64)), b.plant(2, **DIGESTS)),
        lambda b: b.merge(b.plant(1, **DIGESTS), b.plant(2, **DIGESTS)),
    ),
    Advice(
        "write globs of module paths, such as *.self_attn.*",
        lambda b: b.by_recipe(", modules: [self_attn]"),
        lambda b: b.by_recipe(", modules: ['*.self_attn.*']"),
    ),
    Advice("to strengthen it, give it a weight", Bench.twice, lambda b: b.twice("--weights", 2)),
    Advice(
        "take one of them with a merge recipe's modules",
        Bench.halves,
        lambda b: b.halves(", modules: ['model.layers.*']"),
    ),
    Advice(
        "save one of them again from the class of the model that the other was trained on",
        lambda b: b.pair(prefix="wrapped.model."),
        Bench.pair,
    ),
    Advice(
        "merge adapters of one backbone",
        lambda b: b.pair(shapes={f"model.{Q}": (16, 16)}),
        Bench.pair,
    ),
    Advice(MOMENTS, lambda b: b.pair("--method", "regmean"), lambda b: b.averaged(None)),
    Advice(
        MOMENTS,
        lambda b: b.averaged(None, 1),
        lambda b: b.averaged(None),
    ),
    Advice(
        MOMENTS,
        lambda b: b.averaged(None, 1),
        lambda b: b.averaged(None, 1, "method: pico"),
    ),
    Advice(
        "collect them on more prompts, or take a smaller alpha",
        lambda b: b.averaged(2.0, more="method: regmean\noptions: {alpha: 1.0}"),
        lambda b: b.averaged(2.0, more="method: regmean\noptions: {alpha: 0.9}"),
    ),
    Advice(
        "collect them on more prompts",
        lambda b: b.averaged(0.0),
        lambda b: b.averaged(None),
    ),
    Advice(
        "leave compat out, or set the options",
        lambda b: b.pair("--method", "magnitude", "--compat", "mergekit"),
        lambda b: b.pair("--method", "magnitude"),
    ),
    Advice(
        "leave compat out, or set the options",
        lambda b: b.pair("--method", "magnitude", "--compat", "mergekit"),
        lambda b: b.pair("--method", "magnitude", "--option", "trim=tensor"),
    ),
    Advice(
        "take a smaller epsilon",
        lambda b: b.pair("--method", "della", "--option", "density=0.05"),
        lambda b: b.pair("--method", "della", "--option", "density=0.05", "--option", "epsilon=0.02"),
    ),
    Advice(
        "take a smaller epsilon",
        lambda b: b.pair("--method", "della", "--option", "density=1.0"),
        lambda b: b.pair("--method", "della", "--option", "density=1.0", "--option", "epsilon=0.0"),
    ),
    Advice(
        "leave merge.trials out",
        lambda b: b.pair("--set", "merge.trials=2"),
        Bench.pair,
    ),
    Advice(
        "give --output",
        lambda b: typed("merge", b.plant(1), "--into", b.model()),
        Bench.fused,
    ),
    Advice("save it with save_pretrained", Bench.pickled, Bench.fused),
    Advice("mount the adapter", lambda b: b.headed(without=False), Bench.served),
    Advice(
        "leave this module out with a merge recipe's modules",
        lambda b: b.headed(without=False),
        lambda b: b.headed(without=True),
    ),
    Advice("use the backbone that the adapter was made for", lambda b: b.fused(7), Bench.fused),
    Advice("name its folder with --from", Bench.moved, lambda b: b.again("--from", b.home / "elsewhere")),
    Advice("make it with palette 0.0.1, which wrote it", Bench.older, Bench.older_again),
    Advice(
        "merge with weighted_sum and no --rank or --energy",
        lambda b: b.unmerged("domain2", "--rank", 3),
        Bench.unmerged,
    ),
    Advice(
        "merge with weighted_sum and no --rank or --energy",
        lambda b: b.unmerged("domain2", "--method", "ties"),
        Bench.unmerged,
    ),
    Advice("merge the others again", Bench.shared, lambda b: b.merge(b.home / "twin")),
    Advice("name a domain or a digest of domain", lambda b: b.unmerged("law"), Bench.unmerged),
    Advice(
        "merge the adapters again", lambda b: b.dissected(spoilt=True), lambda b: b.dissected(spoilt=False)
    ),
]


@pytest.mark.parametrize("advice", ADVICE, ids=named)
def test_the_advice_helps(tmp_path: Path, advice: Advice) -> None:
    advice.tried(Bench(tmp_path))


def test_a_digest_that_is_named_is_taken(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (advice,) = [each for each in ADVICE if each.advised.startswith("name a domain or a digest")]
    sentence = advice.tried(bench)
    digest = sentence.partition("domain2 ")[2][:12]
    bench.unmerged(digest)
