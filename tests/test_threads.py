"""Laws of work in threads: the order of a plain loop, two at once, and nothing that goes on unseen."""

from __future__ import annotations

import ctypes
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palette import threads
from palette.threads import Freed, beside, lanes


@pytest.fixture
def cores(monkeypatch):
    """Says how many cores there are."""
    return lambda count: monkeypatch.setattr(threads, "_cores", lambda: count)


@given(st.lists(st.integers(), max_size=8), st.integers(1, 4))
def test_results_come_in_the_order_of_their_pieces(values, count):
    def piece(place):
        time.sleep(0.002 * (place % 2))
        return values[place]

    pieces = [lambda place=place: piece(place) for place in range(len(values))]
    assert list(beside(pieces, count)) == values


def test_two_pieces_run_at_once_on_threads_of_their_own(cores):
    cores(2)
    both = threading.Barrier(2, timeout=20)
    # Alone, none of them would pass.
    assert sorted(beside([both.wait] * 4, 2)) == [0, 0, 1, 1]


def test_one_core_runs_one_after_the_other(cores):
    cores(1)
    names = set(beside([lambda: threading.current_thread().name] * 3, 2))
    assert names == {threading.current_thread().name}


def test_a_piece_that_has_pieces_of_its_own_does_not_wait_for_a_thread(cores):
    cores(2)
    inner = [lambda: 1] * 3
    assert list(beside([lambda: sum(beside(inner, 2))] * 4, 2)) == [3] * 4


def test_what_a_piece_raises_is_raised_and_nothing_runs_any_more(cores):
    cores(2)
    running = []

    def slow():
        running.append("begun")
        time.sleep(0.05)
        running.append("done")

    def wrong():
        raise KeyError("it")

    with pytest.raises(KeyError, match="it"):
        list(beside([wrong, slow, slow], 2))
    assert running.count("begun") == running.count("done")


def test_pieces_have_as_many_torch_threads_as_their_caller(cores):
    cores(2)
    assert set(beside([torch.get_num_threads] * 4, 2)) == {torch.get_num_threads()}


def test_passes_that_take_all_cores_run_one_after_the_other(cores):
    cores(8)
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        assert set(beside([lambda: threading.current_thread().name] * 3, 2)) == {
            threading.current_thread().name
        }
    finally:
        torch.set_num_threads(before)


def test_an_accelerator_is_given_one_piece_at_a_time():
    assert lanes(torch.device("cpu")) == threads.LANES
    assert lanes(torch.device("cuda", 0)) == 1


def test_memory_is_given_back_now_and_then_and_nowhere_by_force(monkeypatch):
    now, trimmed = [0.0], []
    freed = Freed(10.0, lambda: now[0])
    library = SimpleNamespace(malloc_trim=lambda pad: trimmed.append(pad) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    for seconds in (1.0, 9.9, 10.0, 12.0, 20.0, 31.0):
        now[0] = seconds
        freed.give_back()
    assert trimmed == [0, 0, 0]
    now[0] = 99.0
    # A C library without it keeps what it keeps.
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert not freed.give_back()
