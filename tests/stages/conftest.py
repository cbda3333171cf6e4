from __future__ import annotations

from dataclasses import replace

import pytest

from palette import organism
from palette.authorisation import authorise
from palette.backbones import load_backbone
from palette.prompts import load_prompts
from palette.stages.assignment import Assignment


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Assignment:
    """The medical assignment on the small shared organism, in a folder of its own."""
    backbone = load_backbone(organism.weights("shared"), "organism/shared")
    prompts = load_prompts(organism.prompts("shared"))
    authorisation = authorise(["medical"], prompts.domains)
    return Assignment(backbone, prompts, authorisation, tmp_path_factory.mktemp("shared"))


@pytest.fixture
def elsewhere(shared, tmp_path) -> Assignment:
    """The same assignment in an empty folder."""
    return replace(shared, folder=tmp_path)
