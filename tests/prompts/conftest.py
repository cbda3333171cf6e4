"""Files of prompts, written as a test needs them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.standins import STAND_INS

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows to a file by its ending; rows by key into .json where a key is wanted."""

    def written(name: str, rows: list[dict[str, Any]], by_key: bool = False) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".csv", ".tsv"):
            with path.open("w", encoding="utf-8", newline="") as stream:
                lines = csv.DictWriter(
                    stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
                )
                lines.writeheader()
                lines.writerows(rows)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        elif path.suffix == ".parquet":
            arrow = pytest.importorskip("pyarrow")
            parquet = pytest.importorskip("pyarrow.parquet")
            parquet.write_table(arrow.Table.from_pylist(rows), path)
        else:
            content = {str(i): row for i, row in enumerate(rows)} if by_key else rows
            path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return written


@pytest.fixture
def stand_in(write: Write) -> Callable[[str], Path]:
    """The file of a set's stand-in."""

    def made(schema: str) -> Path:
        name, rows = STAND_INS[schema]
        return write(name, rows, by_key=schema == "mm_safetybench")

    return made
