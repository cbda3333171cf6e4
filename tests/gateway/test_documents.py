"""What is shipped beside the gateway's page: it can be read, and names what is there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from palette.gateway.limits import Limits
from palette.gateway.monitor import Monitor

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "gateway.md").read_text(encoding="utf-8")


def test_alerts_are_on_figures_that_there_are():
    rules = [
        rule
        for group in yaml.safe_load((DOCS / "gateway" / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    monitor = Monitor()
    monitor.lost()
    page = monitor.page(0).decode()
    known = set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    named = {name for rule in rules for name in re.findall(r"palette_\w+", rule["expr"])}
    assert named
    assert named <= known
    assert all(rule["annotations"]["summary"] for rule in rules)


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml", "alerts.yaml"])
def test_examples_can_be_read(name):
    assert list(yaml.safe_load_all((DOCS / "gateway" / name).read_text()))


def test_the_page_names_every_limit_and_its_default():
    said = dict(re.findall(r"`(\w+)` \((\d+)", PAGE))
    assert said == {each.name: f"{each.default:.0f}" for each in fields(Limits)}
