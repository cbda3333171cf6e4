"""What all tests share: no network, one thread, shapes enforced, and tiny models of their own."""

from __future__ import annotations

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
# Replies that tests generate are kept in a folder of their own, or not at all.
os.environ["PALETTE_CACHE"] = tempfile.mkdtemp(prefix="palette-tests-")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "palette"
SHAPED = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if "from palette.shapes import" in path.read_text(encoding="utf-8")
]
# Before the first import of the package, so that every shape annotation is checked in tests. Modules without
# one are left alone: the check of a call costs as much as many a call, and their types mypy knows.
install_import_hook(SHAPED, "beartype.beartype")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models of this size are fastest on one thread, and their bytes depend on no core count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """The medical run on the small shared organism, in a folder of its own; its replies are not kept."""
    from palette.recipe import Recipe
    from palette.run import Run

    recipe = Recipe(model="organism/shared", authorise=("medical",), keep_replies=False)
    run = Run(recipe, tmp_path_factory.mktemp("shared"))
    _ = run.backbone, run.prompts, run.authorisation
    return run


@pytest.fixture(scope="session")
def sighted(tmp_path_factory):
    """The medical run on the organism that sees, with a few prompts in every cell."""
    from palette.recipe import create_recipe
    from palette.run import Run
    from tests.fixtures.sighted import RECIPE, few_prompts

    folder = tmp_path_factory.mktemp("sighted")
    content = {**RECIPE, "prompts": str(few_prompts(folder / "prompts"))}
    run = Run(create_recipe({"name": "sighted", **content}), folder / "run")
    _ = run.backbone, run.prompts, run.authorisation
    return run


@pytest.fixture
def elsewhere(shared, tmp_path):
    """The same run in an empty folder."""
    return shared.sharing(folder=tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a YAML file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
