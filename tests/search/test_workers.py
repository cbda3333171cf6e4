from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from palette.errors import SearchError
from palette.search.workers import workers


def test_workers_are_waited_for():
    with workers(time.sleep, [(0.01,)]):
        assert len(multiprocessing.active_children()) == 1
    assert not multiprocessing.active_children()
    with workers(time.sleep, []):
        assert not multiprocessing.active_children()


def test_an_error_ends_them():
    with pytest.raises(KeyboardInterrupt), workers(time.sleep, [(600,), (600,)]):
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()


def test_one_that_ends_badly_is_named():
    with (
        pytest.raises(SearchError, match="every worker of a search must end well, got exit status 3"),
        workers(os._exit, [(3,)]),
    ):
        pass
