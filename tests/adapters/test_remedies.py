"""What an error on adapters advises is done, and the error is gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import open_adapter, read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule, dora_as_lora
from palette.adapters.mounting import mounted
from palette.adapters.writing import CONFIG, WEIGHTS, write_adapter
from palette.files import read_tensors, write_tensors
from tests.adapters.test_layouts import BOTH, expert_folder, qwen
from tests.fixtures.remedies import Advice, named, typed

DOWN, Q = "model.layers.1.mlp.down_proj", "model.layers.1.self_attn.q_proj"
DOUBTED = r"(q|down)_proj{1,2001}"
"""A key that PEFT's library would write out 2001 times."""


@dataclass(frozen=True)
class Bench:
    """A tiny backbone, and an adapter of it as PEFT wrote it: the original, and a copy to spoil."""

    home: Path
    original: Path
    dora: Path
    make: Callable[[], LlamaForCausalLM]

    @property
    def adapter(self) -> Path:
        return self.home / "adapter"

    def opened(self, **fields: object) -> Adapter:
        """The copy read whole, with these fields in its configuration."""
        config = json.loads((self.adapter / CONFIG).read_text())
        (self.adapter / CONFIG).write_text(json.dumps({**config, **fields}))
        return read_adapter(self.adapter)

    def spoilt(self, name: str, spoil: Callable[[bytes], bytes]) -> Adapter:
        """The copy read whole, with other bytes in a file."""
        path = self.adapter / name
        path.write_bytes(spoil(path.read_bytes()))
        return read_adapter(self.adapter)

    def copied(self) -> Adapter:
        """The copy, copied again."""
        shutil.copytree(self.original, self.adapter, dirs_exist_ok=True)
        return read_adapter(self.adapter)

    def without(self, name: str) -> Adapter:
        """The copy without a file, as a file of its own."""
        (self.adapter / name).unlink()
        return read_adapter(self.adapter / WEIGHTS)

    def pickled(self, *, again: bool) -> Adapter:
        """The copy as PEFT's pickle, and then saved once more by PEFT."""
        (self.adapter / WEIGHTS).unlink(missing_ok=True)
        loaded = PeftModel.from_pretrained(self.make(), self.adapter if again else self.original)
        loaded.save_pretrained(self.adapter, safe_serialization=again, save_embedding_layers=False)
        return read_adapter(self.adapter)

    def written(self, scale: float = 1.0, **card: object) -> Path:
        """An adapter of one module, as Palette writes it, and more on its card."""
        module = LoraModule(torch.ones(2, 48), torch.ones(32, 2) * scale)
        folder = self.home / "written"
        write_adapter(folder, Adapter({DOWN: module}, BackboneIdentity("tiny")))
        tensors, own = read_tensors(folder / WEIGHTS)
        write_tensors(folder / WEIGHTS, tensors, {**own, **card})
        return folder

    def rescaled(self, *, by_hand: bool) -> None:
        """What is written, half as strong: by its alpha, or by a merge."""
        folder = self.written()
        path, whole = folder / CONFIG, read_adapter(folder).modules[DOWN].delta()
        config = json.loads(path.read_text())
        if by_hand:
            path.write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] / 2}))
            read_adapter(folder)
        typed("merge", folder, "--weights", 0.5, "-o", self.home / "out")
        assert torch.allclose(read_adapter(self.home / "out").modules[DOWN].delta(), whole / 2)

    def converted(self, *options: object) -> None:
        """DoRA merged alone."""
        typed("merge", self.dora, "-o", self.home / "out", *options)
        assert len(read_adapter(self.home / "out").modules) == 8

    def model(self, **sizes: int) -> Path:
        """The folder of the backbone, or of one of other sizes."""
        folder = self.home / "model"
        config = {**self.make().config.to_dict(), **sizes}
        model = LlamaForCausalLM(LlamaConfig(**config)) if sizes else self.make()
        model.save_pretrained(folder)
        return folder

    def rescaled_rows(self, **sizes: int) -> None:
        """What DoRA makes of a module on the backbone, or on one of other sizes."""
        weight = BackboneWeights(self.model(**sizes))(Q)
        dora_as_lora(Q, LoraModule(torch.ones(1, 32), torch.ones(32, 1)), torch.ones(32), weight)

    def run(self, model: torch.nn.Module, adapter: Adapter) -> None:
        with mounted(model, adapter):
            model(torch.tensor([[1, 2, 3]]))

    def experts(self, **told: object) -> Adapter:
        """Of fused experts, trained as PEFT is told, with an unknown parameter told beside."""
        folder = expert_folder(self.home / "experts", qwen)
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **told}))
        return read_adapter(folder)

    def merged(self, *options: object, size: int = 32, rank: int = 2) -> None:
        """Two random adapters merged."""
        folders = []
        for seed in (1, 2):
            draw = torch.Generator().manual_seed(seed)
            factors = (torch.randn(*shape, generator=draw) for shape in ((rank, size), (size, rank)))
            write_adapter(self.home / str(seed), Adapter({DOWN: LoraModule(*factors)}))
            folders.append(self.home / str(seed))
        typed("merge", *folders, "-o", self.home / "out", *options)


def other(**sizes: int) -> LlamaForCausalLM:
    """A backbone whose sizes are others."""
    common = {"vocab_size": 61, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    return LlamaForCausalLM(LlamaConfig(**{**common, "hidden_size": 32, "num_hidden_layers": 4, **sizes}))


COPY = "copy or train the adapter again"
MOUNT = "mount the adapter on the backbone it was made for"
ADVICE = [
    Advice(
        "save it again with safe_serialization=True",
        lambda b: b.pickled(again=False),
        lambda b: b.pickled(again=True),
    ),
    Advice(COPY, lambda b: b.spoilt(CONFIG, lambda text: text[:-9]), Bench.copied),
    Advice(COPY, lambda b: b.opened(alpha_pattern=[2]), Bench.copied),
    Advice(COPY, lambda b: b.opened(use_dora=True), Bench.copied),
    Advice("copy or train it again", lambda b: b.spoilt(WEIGHTS, lambda data: data[:-9]), Bench.copied),
    Advice(
        "train or export it again",
        lambda b: b.spoilt(WEIGHTS, lambda data: data[:-4] + b"\0\0\xc0\x7f"),
        Bench.copied,
    ),
    Advice("train or export it again", lambda b: b.opened(r=5), Bench.copied),
    Advice("put the one it was saved with beside it", lambda b: b.without(CONFIG), Bench.copied),
    Advice("train it again as plain LoRA", lambda b: b.opened(bias="all"), Bench.copied),
    Advice(
        "write the names out",
        lambda b: b.opened(alpha_pattern={DOUBTED: 5}),
        lambda b: b.opened(alpha_pattern={"q_proj": 5, "down_proj": 5}),
    ),
    Advice(
        "train the adapter again",
        lambda b: read_adapter(b.written(backbone="tiny")),
        lambda b: read_adapter(b.written()),
    ),
    Advice(
        "to scale it merge it with --weights",
        lambda b: b.rescaled(by_hand=True),
        lambda b: b.rescaled(by_hand=False),
    ),
    Advice(
        "make it plain LoRA with palette merge --backbone FOLDER",
        Bench.converted,
        lambda b: b.converted("--backbone", b.model()),
    ),
    Advice(
        "give the backbone that the adapter was made for",
        lambda b: b.rescaled_rows(hidden_size=16),
        Bench.rescaled_rows,
    ),
    Advice(
        MOUNT,
        lambda b: b.run(other(num_hidden_layers=1), open_adapter(b.original)),
        lambda b: b.run(b.make(), open_adapter(b.original)),
    ),
    Advice(
        MOUNT,
        lambda b: b.run(other(intermediate_size=40), open_adapter(b.original)),
        lambda b: b.run(b.make(), open_adapter(b.original)),
    ),
    Advice(MOUNT, lambda b: b.run(b.make(), b.experts()), lambda b: b.run(qwen(), b.experts())),
    Advice(
        "target one parameter of a module, or gate_up_proj and down_proj",
        lambda b: b.experts(target_parameters=["mlp.experts.other", *BOTH]),
        lambda b: b.experts(target_parameters=BOTH),
    ),
    Advice(
        "target one parameter of a module, or gate_up_proj and down_proj",
        lambda b: b.experts(target_parameters=BOTH[:1]),
        lambda b: read_adapter(expert_folder(b.home / "one", qwen, target_parameters=BOTH[:1])),
    ),
    Advice(
        "check the weights of the merge",
        lambda b: b.merged("--weights", "1e9,1", "--dtype", "float16"),
        lambda b: b.merged("--weights", "1,1", "--dtype", "float16"),
    ),
    Advice(
        "give the merge a smaller --rank",
        lambda b: b.merged(size=600, rank=280),
        lambda b: b.merged("--rank", 8, size=600, rank=280),
    ),
]


@pytest.fixture(scope="module")
def saved(peft_folder: Callable[..., Path]) -> tuple[Path, Path]:
    return peft_folder(), peft_folder(use_dora=True)


@pytest.fixture
def bench(tmp_path: Path, saved: tuple[Path, Path], backbone: Callable[[], LlamaForCausalLM]) -> Bench:
    made = Bench(tmp_path, *saved, backbone)
    made.copied()
    return made


@pytest.mark.parametrize("advice", ADVICE, ids=named)
def test_the_advice_helps(bench: Bench, advice: Advice) -> None:
    advice.tried(bench)


def test_the_folder_that_is_named_is_an_adapter(bench: Bench) -> None:
    sentence = Advice(
        "give the folder of one of its adapters: ",
        lambda b: open_adapter(b.home),
        lambda b: open_adapter(b.adapter),
    ).tried(bench)
    assert f"adapters: {bench.adapter} (" in sentence
