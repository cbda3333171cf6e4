"""Thousands of broken and hostile adapters: each is refused in one line or read rightly, and quickly.

Another process reads them, so that what is measured is reading alone.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.writing import CONFIG, WEIGHTS, write_adapter

READER = """
import json, signal, sys, time
from pathlib import Path
import torch
from palette.adapters.files import open_adapter, read_adapter
from palette.errors import AdapterError

def outcome(folder):
    try:
        adapter = read_adapter(folder)
    except AdapterError as error:
        return str(error)
    opened = open_adapter(folder)
    assert list(opened.modules) == list(adapter.modules) and adapter.modules
    for name in adapter.modules:
        module = opened.modules[name]
        assert torch.isfinite(module.lora_A).all() and torch.isfinite(module.lora_B).all()
        assert torch.equal(module.lora_B, adapter.modules[name].lora_B)
    json.dumps(adapter.card, allow_nan=False)
    return None

torch.set_num_threads(1)
for line in sys.stdin:
    signal.alarm(20)
    start = time.process_time()
    try:
        said = outcome(Path(line.strip()))
    except BaseException as error:
        said = [type(error).__name__, str(error)[:500]]
    # Not ru_maxrss, which a new process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps([said, time.process_time() - start, peak]), flush=True)
"""

PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "tiny"}
Random = random.Random


class Base(NamedTuple):
    """An honest adapter: the header of its weights, their bytes, and its configuration."""

    header: dict[str, Any]
    payload: bytes
    config: dict[str, Any] | None


class Figures(NamedTuple):
    """What a run of files gave, in files, seconds and megabytes."""

    refused: int
    read: int
    slowest: float
    growth: float


def factors(prefix: str, down: str, up: str, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name in ("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"):
        tensors[f"{prefix}{name}.{down}.weight"] = torch.randn(2, 6, generator=generator)
        tensors[f"{prefix}{name}.{up}.weight"] = torch.randn(5, 2, generator=generator).bfloat16()
        tensors |= {f"{prefix}{name}.{key}": one.clone() for key, one in more.items()}
    return tensors


def base(data: bytes, config: dict[str, Any] | None) -> Base:
    length = int.from_bytes(data[:8], "little")
    return Base(json.loads(data[8 : 8 + length]), data[8 + length :], config)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    """Honest adapters of several layouts, all of which are read."""
    ours = tmp_path_factory.mktemp("ours")
    module = LoraModule(torch.ones(2, 6), torch.ones(5, 2))
    write_adapter(ours, Adapter({"a.b": module, "e.w[0]": module, "e.w[1]": module}, card={"domains": ["x"]}))
    peft, patterns = ("base_model.model.", "lora_A", "lora_B"), {"0.mlp.up_proj": 3, r"^model\.x": 4}
    experts = {
        "base_model.model.e.lora_A.weight": torch.ones(6, 4),
        "base_model.model.e.lora_B.weight": torch.ones(3, 6),
    }
    made = [
        base((ours / WEIGHTS).read_bytes(), json.loads((ours / CONFIG).read_text())),
        base(save(factors(*peft)), PLAIN),
        base(
            save(factors(*peft)),
            {**PLAIN, "use_rslora": True, "rank_pattern": {"x": 3}, "alpha_pattern": patterns},
        ),
        base(save(factors("unet.", "lora_down", "lora_up", alpha=torch.tensor(2.0))), None),
        base(
            save(factors("transformer.", "lora_A", "lora_B"), {"lora_adapter_metadata": json.dumps(PLAIN)}),
            None,
        ),
        base(
            save(
                {
                    "layers.0.mlp.w1.lora_a.weight": torch.ones(2, 3),
                    "layers.0.mlp.w1.lora_b.weight": torch.ones(3, 2),
                }
            ),
            PLAIN,
        ),
        base(save(experts), {**PLAIN, "target_parameters": ["e.w"]}),
    ]
    for number, one in enumerate(made):
        folder = tmp_path_factory.mktemp(f"base{number}")
        assert read_adapter(plant(folder, weights_of(one.header, one.payload), config_of(one.config))).modules
    return made


def weights_of(header: object, payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def config_of(config: object) -> bytes | None:
    return None if config is None else json.dumps(config).encode()


def plant(folder: Path, weights: bytes, config: bytes | None) -> Path:
    """The path of the weights, once they and their configuration, if any, are written."""
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CONFIG).unlink(missing_ok=True)
    if config is not None:
        (folder / CONFIG).write_bytes(config)
    return folder / WEIGHTS


ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**40, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "a", "../../etc/passwd", "\x00", "\x1b[2J", "\ud800", "é" * 100, "(a+)+$", "a" * 5000, "F64",
    "I64", "BOOL",
    "base_model.model.x.lora_A.weight", [], {}, [[]], [1, 2], [0, 0], [2**40, 2**40], [-1], ["x"] * 100,
    {"a": {"b": [1]}}, [0, 24], [24, 48],
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key inside a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from places(value[key])


def edited(rng: Random, value: Any) -> Any:
    """A copy of a JSON value with some of its parts changed, moved, renamed or gone."""
    value = deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        spots = list(places(value))
        if not spots:
            return deepcopy(rng.choice(ODD))
        container, key = rng.choice(spots)
        other, other_key = rng.choice(spots)
        match rng.randrange(5):
            case 0:
                container[key] = deepcopy(rng.choice(ODD))
            case 1:
                container[key] = deepcopy(other[other_key])
            case 2 if isinstance(container[key], int):
                container[key] += rng.choice([-8, -4, -1, 1, 4, 8, 2**20])
            case 3 if isinstance(container, dict):
                name = rng.choice(
                    [str(one) for one in ODD if not isinstance(one, str)] + [key + "\x00", f"{key}.x"]
                )
                container[name] = container.pop(key)
            case _:
                del container[key]
    return value


def flipped(rng: Random, data: bytes, start: int = 0) -> bytes:
    """The bytes with a few of them changed."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if len(changed) > start:
            changed[rng.randrange(start, len(changed))] = rng.choice(
                [0, 255, 0x22, 0x5B, 0x7B, 0x7F, rng.randrange(256)]
            )
    return bytes(changed)


def huge(rng: Random) -> bytes:
    """A header that is meant to take all memory or all time."""
    entry = b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    text = rng.choice([
        lambda: b'{"a":' + b"[" * 5_000_000,
        lambda: b'{"a":' * 1_000_000,
        lambda: b"{" + b",".join(entry % one for one in range(300_000)) + b"}",
        lambda: b'{"__metadata__":{"palette":"' + b"x" * 20_000_000 + b'"}}',
        lambda: b'{"__metadata__":{"palette":"' + b"[" * 4_000_000 + b'"}}',
        lambda: b'{"__metadata__":{"palette":"[' + b"1," * 2_000_000 + b'1]"}}',
        lambda: b'{"__metadata__":{"palette":"' + b"{}," * 1_300_000 + b'"}}',
        lambda: b'{"__metadata__":{"palette":"' + "\U0001f600".encode() * 1_000_000 + b'"}}',
        lambda: b'{"a":{"dtype":"F32","shape":[' + b"9" * 5_000_000 + b"]}}",
        lambda: b'{"a":{"dtype":"F32","shape":[' + b"1," * 2_000_000 + b"1]}}",
        lambda: b'{"' + b"a" * 10_000_000 + b'":1}',
    ])()  # fmt: skip
    return len(text).to_bytes(8, "little") + text


Files = tuple[bytes, bytes | None]
Change = Callable[[Random, Base, Base], Files]


def honest(one: Base) -> Files:
    return weights_of(one.header, one.payload), config_of(one.config)


def broken_header(rng: Random, one: Base, _: Base) -> Files:
    weights = honest(one)[0]
    length = len(weights) - len(one.payload)
    return flipped(rng, weights[:length]) + one.payload, config_of(one.config)


def broken_numbers(rng: Random, one: Base, _: Base) -> Files:
    return weights_of(one.header, flipped(rng, one.payload)), config_of(one.config)


def truncated(rng: Random, one: Base, _: Base) -> Files:
    weights = honest(one)[0]
    return weights[: rng.randrange(len(weights))], config_of(one.config)


def noise(rng: Random, one: Base, _: Base) -> Files:
    data = rng.randbytes(rng.randrange(3000))
    return rng.choice([data, len(data).to_bytes(8, "little") + b"{" + data]), config_of(one.config)


def edited_header(rng: Random, one: Base, _: Base) -> Files:
    return weights_of(edited(rng, one.header), one.payload), config_of(one.config)


def edited_config(rng: Random, one: Base, _: Base) -> Files:
    return honest(one)[0], config_of(edited(rng, one.config or PLAIN))


def broken_config(rng: Random, one: Base, _: Base) -> Files:
    return honest(one)[0], flipped(rng, json.dumps(one.config or PLAIN).encode())


def spliced(rng: Random, one: Base, other: Base) -> Files:
    return weights_of({**other.header, **one.header}, one.payload + other.payload), config_of(one.config)


def edited_card(rng: Random, one: Base, _: Base) -> Files:
    whole = json.dumps({"config": edited(rng, PLAIN), "backbone": rng.choice(ODD)})
    card = rng.choice(["{", "[]", "{}", '{"config": {}}', "[" * 5000, whole, whole])
    header = {**one.header, "__metadata__": {rng.choice(["palette", "adapter_config"]): card}}
    return weights_of(header, one.payload), config_of(one.config)


def enormous(rng: Random, one: Base, _: Base) -> Files:
    config = rng.choice([b"[" * 10_000_000, b'{"a":' * 3_000_000, b"[" + b"1.5," * 900_000 + b"1]"])
    return rng.choice([(huge(rng), config_of(one.config))] * 4 + [(honest(one)[0], config)])


CHANGES: dict[Change, float] = {
    broken_header: 20,
    broken_numbers: 10,
    truncated: 10,
    noise: 10,
    edited_header: 30,
    edited_config: 20,
    broken_config: 10,
    spliced: 5,
    edited_card: 10,
    enormous: 0.5,
}
"""What is done to honest adapters, and how often."""


def hostile(rng: Random, bases: list[Base]) -> Files:
    """The two files of an adapter that something was done to."""
    (change,) = rng.choices(list(CHANGES), list(CHANGES.values()))
    return change(rng, rng.choice(bases), rng.choice(bases))


ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks of memory are Linux's")


@contextmanager
def reader(code: str) -> Iterator[Callable[[Path], tuple[Any, float, float]]]:
    """A function that has another process read a folder: what it said, its seconds, its peak in MB."""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def read(folder: Path) -> tuple[Any, float, float]:
            asked.write(f"{folder}\n")
            asked.flush()
            said, seconds, peak = json.loads(answers.readline() or '["no answer", 0, 0]')
            return said, seconds, peak

        yield read
        asked.close()


def fuzz(bases: list[Base], folder: Path, count: int, code: str = READER) -> Figures:
    """The figures of ``count`` files, each from a seed of its own."""
    refused, slowest, peak = 0, 0.0, 0.0
    with reader(code) as read:
        for one in bases:
            said, _, start = read(plant(folder, weights_of(one.header, one.payload), config_of(one.config)))
            assert said is None
        for seed in range(count):
            said, seconds, peak = read(plant(folder, *hostile(Random(seed), bases)))
            assert said is None or isinstance(said, str), f"seed {seed}: {said}"
            assert said is None or (said.isprintable() and len(said) < 1000), f"seed {seed}: {said!r}"
            assert said != "no answer", f"seed {seed}"
            refused += said is not None
            slowest = max(slowest, seconds)
    return Figures(refused, count - refused, slowest, peak - start)


def check(figures: Figures) -> None:
    assert figures.slowest < 1.0
    assert figures.growth < 200.0
    assert figures.read > figures.refused / 20, "some changes are harmless, so that reading is tried as well"


@ON_LINUX
def test_hostile_files_are_refused_or_read(bases: list[Base], tmp_path: Path) -> None:
    check(fuzz(bases, tmp_path, 300))


@pytest.mark.slow
@ON_LINUX
def test_ten_thousand_hostile_files_are_refused_or_read(bases: list[Base], tmp_path: Path) -> None:
    figures = fuzz(bases, tmp_path, 10_000)
    print(figures)
    check(figures)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("import safetensors.torch; safetensors.torch.load_file(folder)", "seed .*SafetensorError"),
        ("json.loads(folder.with_name('adapter_config.json').read_text())", "seed .*JSONDecodeError"),
        ("import os; os._exit(1)", "no answer"),
    ],
)
@ON_LINUX
def test_a_reader_that_trusts_the_files_is_caught(
    bases: list[Base], tmp_path: Path, broken: str, message: str
) -> None:
    with_configurations = [one for one in bases if one.config is not None]
    code = READER.replace("        adapter = read", f"        {broken}\n        adapter = read")
    assert code != READER
    with pytest.raises(AssertionError, match=message):
        fuzz(with_configurations, tmp_path, 300, code)
