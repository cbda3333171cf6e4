"""What is shipped: where it lies, and how much it is."""

from __future__ import annotations

from palette import organism


def test_every_variant_lives_in_one_of_the_two_worlds():
    folders = {organism.prompts(variant) for variant in organism.VARIANTS}
    assert folders == {organism.prompts("organism"), organism.prompts("shared")}


def test_the_shipped_checkpoints_are_under_twelve_megabytes():
    size = sum(p.stat().st_size for p in organism.weights().parent.rglob("*") if p.is_file())
    assert size < 12 * 2**20
    assert organism.weights().parent.is_dir()
