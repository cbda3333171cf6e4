"""Whatever lies in a file, its reader gives a value or one sentence: never a traceback.

``PALETTE_FUZZ=100000`` asks each reader so many inputs; by default it is a few hundred.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palette import organism
from palette.backbones.template import ChatTemplate, message
from palette.errors import PaletteError
from palette.prompts import PromptSources, load_prompts, read_sources
from palette.prompts.settings import load_sources
from palette.recipe import Recipe, load_recipe, load_token_recipe
from palette.settings import dotted

INPUTS = int(os.environ.get("PALETTE_FUZZ", "200"))
fuzzed = settings(
    max_examples=INPUTS,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)

COLUMNS = [
    "id",
    "prompt",
    "kind",
    "tier",
    "split",
    "domain",
    "hazard",
    "answer",
    "image",
    "type",
    "label",
    "",
]
WORDS = [
    "benign",
    "restricted",
    "A",
    "C",
    "train",
    "test",
    "why",
    "",
    " ",
    "\0",
    "\ud83d",
    "sep=;",
    "-5",
    "é",
]
ANY = st.one_of(
    st.sampled_from(WORDS), st.text(max_size=12), st.integers(), st.floats(), st.booleans(), st.none()
)
VALUES = st.recursive(
    ANY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=8), min_size=1, max_size=5)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
CHATS = [
    {"role": "system", "content": "be kind"}, {"role": "user", "content": "why"},
    {"role": "assistant", "content": "so"}, {"role": "user", "content": "how"},
]  # fmt: skip


def told(read: Any, *given: Any) -> None:
    """Reads, and takes any value, or one sentence a fault."""
    try:
        read(*given)
    except PaletteError as error:
        assert all(0 < len(line) < 20_000 for line in str(error).split("\n"))
        assert str(error).encode()
        assert "Traceback" not in str(error)


def bent(content: bytes, data: st.DataObject) -> bytes:
    """The bytes, some of them cut, put in or turned into others."""
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(content)))
        content = (
            content[:place]
            + data.draw(st.binary(max_size=4))
            + content[place + data.draw(st.integers(0, 4)) :]
        )
    return content


def read_source(path: Path, **keys: Any) -> None:
    read_sources(
        PromptSources.model_validate({"sources": [{"path": str(path), **keys}], "drop_overlaps": True})
    )


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@fuzzed
@given(data=st.data())
def test_tables(tmp_path: Path, ending: str, data: st.DataObject) -> None:
    cells = st.one_of(st.sampled_from([*COLUMNS, *WORDS]), st.text(max_size=6))
    lines = data.draw(st.lists(st.lists(cells, max_size=6), max_size=5))
    mark = data.draw(st.sampled_from([",", ";", "\t", "|"]))
    head = mark.join(data.draw(st.lists(st.sampled_from(COLUMNS), max_size=6)))
    text = "\n".join([head, *(mark.join(line) for line in lines)])
    path = tmp_path / f"ward.{ending}"
    path.write_bytes(bent(text.encode(data.draw(ENCODINGS), "replace"), data))
    told(read_source, path)


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@fuzzed
@given(data=st.data())
def test_json(tmp_path: Path, ending: str, data: st.DataObject) -> None:
    rows = data.draw(ROWS)
    text = json.dumps(rows) if ending == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / f"ward.{ending}"
    path.write_bytes(bent(text.encode(data.draw(ENCODINGS), "replace"), data))
    told(read_source, path)
    if ending == "jsonl":
        told(load_prompts, tmp_path)


KEYS = sorted({name.split(".")[0] for name, _ in dotted(Recipe)})
ODD = [
    "a: &a [*a]\n",
    "a: &a {b: 1}\nc: {<<: *a}\n",
    "a: !!int x\n",
    "a: !!timestamp x\n",
    "\t",
    "? [a]\n",
    "",
]
SET = ["seed=[", "search=3", "search.trials=2", "=", "a.b.c=1"]


@fuzzed
@given(data=st.data())
def test_recipes(tmp_path: Path, data: st.DataObject) -> None:
    content = data.draw(
        st.dictionaries(st.sampled_from([key.split(".")[0] for key in KEYS]), VALUES, max_size=4)
    )
    text = yaml.safe_dump({"authorise": ["medical"], **content}, allow_unicode=data.draw(st.booleans()))
    text += data.draw(st.sampled_from(ODD))
    path = tmp_path / "mine.yaml"
    path.write_bytes(bent(text.encode(data.draw(ENCODINGS), "replace"), data))
    told(
        load_recipe,
        path,
        data.draw(st.lists(st.sampled_from(["seed=[", "search=3", "search.trials=2", "=", "a.b.c=1"]))),
    )
    told(load_token_recipe, path)
    told(load_sources, path)


@fuzzed
@given(
    text=st.one_of(st.text(), st.lists(st.sampled_from(list("[]{}:-&*!?|>'\"%@`#, \n\tax1\\u"))).map("".join))
)
def test_yaml_of_any_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    told(load_recipe, path)


PARTS = [
    "{{ messages }}", "{% for m in messages %}", "{% endfor %}", "{{ m['content'] }}", "{{ m.content }}",
    "{% if m['role'] == 'system' %}", "{% endif %}", "{{ raise_exception('no\nsystem role') }}", "{{", "{%",
    "{{ messages[7] }}", "{{ messages[0]['content'] / 0 }}", "{{ nothing.at.all }}", "{% set x = 1 %}", "}}",
    "{% for i in range(10 ** 9) %}", "{{ ''.__class__ }}", "{% include 'x' %}", "<|end|>", "text ", "%}",
    "{{ m | tojson }}",
]  # fmt: skip


@fuzzed
@given(parts=st.lists(st.sampled_from(PARTS), max_size=8), chat=st.lists(st.sampled_from(CHATS), max_size=4))
def test_chat_templates(tokenizer: Any, parts: list[str], chat: list[dict[str, str]]) -> None:
    tokenizer.chat_template = "".join(parts)
    template = ChatTemplate(tokenizer, "mine", system="be kind" if len(parts) % 2 else "")
    told(template.require_system)
    told(template.render, chat)
    told(template.render, [message("user", "why")])
    assert template.ending is None or isinstance(template.ending, int)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(organism.weights("shared"), local_files_only=True)
