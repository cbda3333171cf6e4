"""What a run takes is told before it runs: it follows the model, its prompts and what fits at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palette import organism
from palette.backbones.batching import CPU_BYTES, CPU_ROWS, growing_bytes
from palette.backbones.cache import bytes_a_token, stated_bytes_a_token
from palette.backbones.loading import load_sketch
from palette.recipe import Recipe
from palette.run import Run
from palette.stages.check import check
from palette.stages.estimate import LIBRARIES, Sizes, memory_of, sizes_of

SHARED = Recipe(model="organism/shared", authorise=("medical",))
SIZES = Sizes(mean=20.0, longest=30, train=2000, asked=1000, groups=14)
STAGES = ["collect", "search", "internalise", "evaluate"]
PEAK = """
import sys
from palette.cli import main
try:
    main()
finally:
    lines = open("/proc/self/status").read().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
"""
"""A command of Palette's, and its peak in KiB; what is counted for children begins with their parent's."""


@pytest.fixture(scope="module")
def sketch():
    return load_sketch(organism.weights("shared"))


def of(sketch, sizes=SIZES, **changed):
    return memory_of(sketch, SHARED.model_copy(update=changed), sizes)


def test_a_token_s_keys_and_values_are_known_before_the_model_is_there(sketch, shared):
    assert stated_bytes_a_token(sketch) == bytes_a_token(shared.backbone)


@given(
    prompts=st.integers(1, 5000),
    width=st.integers(1, 2000),
    limit=st.integers(1, 512),
    more=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_replies_take_more_where_more_of_them_grow_and_no_more_than_they_may(
    sketch, prompts, width, limit, more
):
    token = stated_bytes_a_token(sketch)
    taken = growing_bytes(sketch, prompts, width, limit, limit // 2, token)
    assert taken <= growing_bytes(sketch, prompts + more, width, limit, limit // 2, token)
    # However many there are, no more grow at once.
    many = growing_bytes(sketch, 2 * CPU_ROWS, width, limit, limit // 2, token)
    assert taken <= many
    one = growing_bytes(sketch, 1, width, limit, limit // 2, token)
    assert many <= max(2 * CPU_BYTES, one)


def test_what_is_read_beside_the_weights_counts_where_it_is_larger_than_all_that_grows(sketch):
    small, large = of(sketch), of(sketch, SIZES._replace(stored=4 << 30))
    assert list(small) == list(large) == STAGES
    weights = sum(each.nbytes for each in sketch.model.parameters()) / 2**30
    assert large["collect"] == pytest.approx(LIBRARIES + weights + 4)
    assert all(small[stage] < large[stage] for stage in STAGES)
    own = round(weights * 2**30)
    assert of(sketch, SIZES._replace(stored=own + 999)) == small, "the weights are the file, mapped"


def test_a_stage_takes_more_than_the_model_and_no_more_than_it_may(sketch):
    few, many = of(sketch, SIZES._replace(train=8, asked=8)), of(sketch)
    assert all(LIBRARIES < few[stage] <= many[stage] for stage in STAGES)
    assert few["collect"] < many["collect"]
    longer = of(sketch, SIZES._replace(mean=200.0, longest=300))
    assert all(many[stage] < longer[stage] for stage in STAGES)
    assert of(sketch, memory_gib=0.01)["internalise"] < many["internalise"]
    assert of(sketch, device="cuda")["collect"] < many["collect"], "replies grow on another device"


def test_prompts_that_no_stage_reads_count_for_nothing(sketch, tmp_path):
    run = Run(SHARED, tmp_path)
    every = sizes_of(sketch, run.prompts, SHARED)
    few = sizes_of(sketch, run.prompts, SHARED.model_copy(update={"limit": 10}))
    assert (few.train, few.asked) == (10 * every.groups, 10 * every.groups)
    file = organism.weights("shared") / "model.safetensors"
    assert sizes_of(sketch, run.prompts, SHARED, [file]).stored == file.stat().st_size
    assert every.stored == 0 < few.longest == every.longest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs what Linux says of a process")
def test_what_is_told_of_collecting_is_what_it_takes(tmp_path):
    recipe = tmp_path / "few.yaml"
    recipe.write_text("model: organism/shared\nauthorise: [medical]\nkeep_replies: false\n")
    told = check(recipe)["stages_gib"]["collect"]
    command = [sys.executable, "-c", PEAK, "collect", str(recipe), "-o", str(tmp_path / "run"), "--quiet"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.split()[-1]) / 2**20
    assert told == pytest.approx(peak, rel=0.2)
