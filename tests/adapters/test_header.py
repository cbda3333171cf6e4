"""The header: honest ones are read as safetensors reads them, and nothing hostile passes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from palette.adapters.header import HEADER_LIMIT, TENSOR_LIMIT, Header, read_header
from palette.errors import AdapterError

LAW = "an adapter must be a whole safetensors file, got "
WHOLE = save({"a.b": torch.ones(2, 3), "c": torch.zeros(4, dtype=torch.bfloat16)}, {"format": "pt"})


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Header]:
    """A function that writes bytes to a file and reads its header."""

    def make(data: bytes) -> Header:
        path = tmp_path / "adapter_model.safetensors"
        path.write_bytes(data)
        return read_header(path)

    return make


def with_header(text: str | bytes, size: int = 0) -> bytes:
    header = text if isinstance(text, bytes) else text.encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


def entry(shape: object = (1,), offsets: object = (0, 4), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def table(**entries: object) -> str:
    return json.dumps(entries)


dtypes = st.sampled_from(
    [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
shapes = st.lists(st.integers(0, 4), max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    tensors=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_.\-]{1,40}", fullmatch=True), st.tuples(dtypes, shapes), min_size=1
    ),
    metadata=st.dictionaries(st.text(), st.text(), max_size=5),
    pretty=st.sampled_from([None, 1]),
)
def test_honest_headers_are_read_as_safetensors_reads_them(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: dict[str, tuple[torch.dtype, list[int]]],
    metadata: dict[str, str],
    pretty: int | None,
) -> None:
    path = tmp_path_factory.mktemp("honest") / "x.safetensors"
    made = {name: torch.ones(shape, dtype=dtype) for name, (dtype, shape) in tensors.items()}
    data = save(made, metadata)
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + length]), indent=pretty, sort_keys=pretty is not None)
    path.write_bytes(with_header(text) + data[8 + length :])
    header = read_header(path)
    whole = path.read_bytes()
    with safe_open(path, framework="pt") as handle:
        assert set(header.entries) == set(handle.keys())
        assert header.metadata == (handle.metadata() or {}) == metadata
        for name, one in header.entries.items():
            theirs = handle.get_tensor(name)
            assert list(one.shape) == list(theirs.shape)
            assert (
                whole[one.start : one.end] == theirs.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )


HOSTILE = [
    (b"", "no header that fits into the file"),
    (WHOLE[:-5], "5 bytes too few"),
    (WHOLE[:40], "no header that fits into the file"),
    (WHOLE + b"x", "1 bytes too many"),
    (b"PK\x03\x04 a zip file, longer than eight bytes", "no header that fits into the file"),
    ((2**63).to_bytes(8, "little") + b"{}", "no header that fits into the file"),
    (with_header("  "), "a header that is no table of tensors at byte 0"),
    (with_header("[]"), "no table of tensors at byte 0, '[]'"),
    (with_header("{}x"), "no table of tensors at byte 2, 'x'"),
    (with_header("{,}"), "no table of tensors at byte 1"),
    (with_header('{"a":1}'), """no table of tensors at byte 1, '"a":1}'"""),
    (with_header('{"a":{}}'), "no table of tensors at byte 1"),
    (with_header("{" + f'"a":{json.dumps(entry())},"a":{json.dumps(entry())}' + "}", 4), "stands twice"),
    (with_header(table(a=entry())[:-1] + ',"\\u0061":' + json.dumps(entry()) + "}", 4), "no table of tens"),
    (with_header(table(**{"a\x1b[2J": entry()}), 4), "no table of tensors at byte 1"),
    (with_header(table(**{"../a": entry()}), 4), '\'"../a"'),
    (with_header(table(**{"a\x00": entry()}), 4), "no table of tensors"),
    (with_header(table(**{"é": entry()}), 4), "no table of tensors"),
    (with_header(table(**{"a" * 513: entry()}), 4), "no table of tensors"),
    (with_header(table(a=entry(dtype="F4")), 4), "no table of tensors"),
    (with_header(table(a={**entry(), "x": 1}), 4), "no table of tensors"),
    (with_header('{"a":{"dtype":"F32","dtype":"F32","shape":[1]}}', 4), "no table of tensors"),
    (with_header(table(a=entry(offsets=[0, 4, 8])), 4), "no table of tensors"),
    (with_header(table(a=entry(shape=[-1])), 4), "no table of tensors"),
    (with_header(table(a=entry(shape=[1.0])), 4), "no table of tensors"),
    (with_header(table(a=entry(shape=[float("nan")])), 4), "no table of tensors"),
    (with_header(table(a=entry()).replace("[1]", "[01]"), 4), "no table of tensors at byte 1"),
    (with_header(table(a=entry()).replace("[1]", "[1,]"), 4), "no table of tensors at byte 1"),
    (with_header(table(a=entry()).replace("[1]", "[1 1]"), 4), "no table of tensors at byte 1"),
    (with_header(table(a=entry(shape=[10**40])), 4), "no table of tensors at byte 1"),
    (with_header(table(a=entry(shape=[1] * 9)), 4), "no table of tensors at byte 1"),
    (with_header(table(a=entry(shape=[0, 10**17], offsets=[0, 0]))), "a of the shape [0, 1000"),
    (with_header(table(a=entry(shape=[2**23, 2**23], offsets=[0, 2**48]))), "a of the shape [8388608, 83"),
    (with_header(table(a=entry(shape=[2])), 4), "4 bytes of 8 for a"),
    (with_header(table(a=entry(offsets=[4, 0])), 4), "-4 bytes of 4 for a"),
    (with_header(table(a=entry(), b=entry()), 4), "bytes that two tensors share"),
    (with_header(table(a=entry(), b=entry(offsets=[2, 6])), 6), "bytes that two tensors share"),
    (with_header(table(a=entry(), b=entry(offsets=[8, 12])), 12), "bytes of no tensor"),
    (with_header(table(a=entry(offsets=[4, 8])), 8), "bytes of no tensor"),
    (with_header(table(a=entry()), 3), "1 bytes too few"),
    (with_header('{"__metadata__":{},"__metadata__":{}}'), "a name in its header stands twice"),
    (with_header('{"__metadata__":[]}'), "metadata that is no table of at most 1024 strings"),
    (with_header('{"__metadata__":{"a":1}}'), "metadata that is no table of at most 1024 strings"),
    (with_header('{"__metadata__":{"a":{}}}'), "metadata that is no table of at most 1024 strings"),
    (with_header('{"__metadata__":{"a":"b","a":"c"}}'), "metadata in which a key stands twice"),
    (with_header('{"__metadata__":{"a":"b"'), "metadata that is no table of at most 1024 strings"),
    (with_header('{"__metadata__":{"a":"b'), "metadata that is no table of at most 1024 strings"),
    (with_header('{"__metadata__":{"a":"\\ud800"}}'), "surrogates not allowed"),
    (with_header(b'{"__metadata__":{"a":"\xff"}}'), "can't decode byte 0xff"),
    (with_header('{"__metadata__":{"a":"\n"}}'), "metadata that is no table of at most 1024 strings"),
]


@pytest.mark.parametrize(("data", "got"), HOSTILE)
def test_damaged_and_hostile_headers_are_refused(
    read: Callable[[bytes], Header], data: bytes, got: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        read(data)
    sentence = str(caught.value)
    assert sentence.startswith(LAW)
    assert got in sentence
    assert "; copy or train it again (" in sentence
    assert sentence.isascii()
    assert sentence.isprintable()


def test_every_truncation_is_refused(read: Callable[[bytes], Header]) -> None:
    refused = 0
    for length in range(len(WHOLE)):
        with pytest.raises(AdapterError):
            read(WHOLE[:length])
        refused += 1
    assert refused == len(WHOLE)
    assert set(read(WHOLE).entries) == {"a.b", "c"}


LARGE = {
    "lists in lists": lambda: b'{"a":' + b"[" * 10_000_000,
    "tables in tables": lambda: b'{"a":' * 3_000_000,
    "a number of ten million digits": lambda: b'{"a":{"dtype":"F32","shape":[' + b"9" * 10_000_000,
    "spaces": lambda: b"{" + b" " * 20_000_000,
    "20 MB of metadata": lambda: b'{"__metadata__":{"a":"' + b"x" * 20_000_000 + b'"}}',
    "escapes in metadata": lambda: b'{"__metadata__":{"a":"' + b'\\"' * 10_000_000 + b'"}}',
    "many metadata": lambda: (
        b'{"__metadata__":{' + b",".join(b'"%d":""' % one for one in range(300_000)) + b"}}"
    ),
    "300,000 tensors": lambda: (
        b"{"
        + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % one for one in range(300_000))
        + b"}"
    ),
    "30 MB": lambda: b"{" + b" " * (30 << 20) + b"}",
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_hostile_headers_are_refused_within_a_second(
    read: Callable[[bytes], Header], kind: str
) -> None:
    data = with_header(LARGE[kind]())
    with pytest.raises(AdapterError) as caught:
        before = time.process_time()
        read(data)
    assert time.process_time() - before < 1.0
    assert len(str(caught.value)) < 500


def test_the_limits_hold_what_is_honest() -> None:
    name = "base_model.model.model.layers.57.mlp.experts.255.gate_proj.lora_A.weight"
    honest = len(f'"{name}":{{"dtype":"BF16","shape":[64,7168],"data_offsets":[99999999999,99999999999]}},')
    assert TENSOR_LIMIT > 58 * 256 * 3 * 2
    assert 58 * 256 * 3 * 2 * honest < HEADER_LIMIT


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="Is a directory"):
        read_header(tmp_path)
    with pytest.raises(AdapterError, match="no regular file"):
        read_header(Path(os.devnull))
    with pytest.raises(AdapterError, match="No such file"):
        read_header(tmp_path / "nowhere")
