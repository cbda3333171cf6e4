"""One command at a time in a folder: its lock and its log."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from threading import Barrier, Thread

import pytest

from palette.errors import OutputError, PromptError
from palette.files import LOCK, LOG, claim, require_free
from palette.working import LOGGER, holder, working

OWNER = {"recipe": "mine"}
HOLDING = (
    "import sys, time\nfrom pathlib import Path\nfrom palette.working import working\n"
    "with working(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    call = [sys.executable, "-c", HOLDING, str(tmp_path / "run")]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_in_a_sentence_that_names_the_first(other, tmp_path):
    with pytest.raises(OutputError) as caught, working(tmp_path / "run"):
        pass
    said = str(caught.value)
    assert f"got process {other.pid} on {platform.node()}, since 20" in said
    assert "wait for it, stop it, or choose another folder with --output" in said
    assert holder(tmp_path / "run")["pid"] == other.pid


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_that_is_gone_is_taken_over(other, tmp_path, how):
    other.send_signal(how)
    other.wait()
    assert (tmp_path / "run" / LOCK).is_file()
    assert holder(tmp_path / "run") is None
    with working(tmp_path / "run"):
        assert holder(tmp_path / "run")["pid"] == os.getpid()


@pytest.mark.parametrize(
    "left",
    ["", "[]", "{", '{"pid": 999999999, "host": "far", "since": "then"}', '{"pid": "x"}', "null"],
)
def test_a_lock_that_nobody_holds_hinders_nobody_whatever_stands_in_it(tmp_path, left):
    (tmp_path / LOCK).write_text(left)
    with working(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_two_threads_are_two_commands_and_one_after_the_other_is_well(tmp_path):
    for _ in range(2):
        with (
            working(tmp_path),
            pytest.raises(OutputError, match=f"process {os.getpid()} on"),
            working(tmp_path),
        ):
            pass


def test_of_many_that_come_at_once_never_two_are_in(tmp_path):
    """Locks are removed while others wait for them: one that was opened before must not count."""
    inside, most, start = [], [], Barrier(6)

    def work() -> None:
        start.wait()
        for _ in range(40):
            try:
                with working(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except OutputError:
                continue

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}


def test_a_mistake_leaves_nothing_behind(tmp_path):
    with pytest.raises(PromptError), working(tmp_path / "runs" / "mine"):
        assert require_free(tmp_path / "runs" / "mine", OWNER) is False, "its lock makes it nobody's"
        raise PromptError("a law")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(PromptError), working(tmp_path / "mine"):
        raise PromptError("a law")
    assert list((tmp_path / "mine").iterdir()) == []


def test_the_log_has_what_was_said_warnings_and_the_error_each_with_its_time(tmp_path):
    with pytest.raises(PromptError), working(tmp_path):
        claim(tmp_path, OWNER)
        LOGGER.info("collect begins")
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            warnings.warn("an old name", FutureWarning, stacklevel=1)
        warnings.showwarning("another", FutureWarning, "x.py", 1)
        raise PromptError("prompts must be there", got="none")
    LOGGER.info("outside")
    said = [line.split(" ", 2)[2] for line in (tmp_path / LOG).read_text().splitlines()]
    assert said == [
        "INFO collect begins", "WARNING FutureWarning: another", "ERROR prompts must be there, got none"
    ]  # fmt: skip
    assert len(shown) == 1, "who records warnings still gets them"
    assert not [each for each in LOGGER.handlers if isinstance(each, logging.FileHandler)]


def test_an_interruption_and_a_bug_stand_in_the_log_the_bug_s_words_do_not(tmp_path):
    claim(tmp_path, OWNER)
    with pytest.raises(KeyboardInterrupt) as stop, working(tmp_path):
        raise KeyboardInterrupt
    assert stop.value.__notes__ == [f"what was done so far is kept in {tmp_path}"]
    with pytest.raises(ZeroDivisionError), working(tmp_path):
        raise ZeroDivisionError("sec" + "ret")
    said = (tmp_path / LOG).read_text()
    assert f"interrupted; what was done so far is kept in {tmp_path}" in said
    assert "ZeroDivisionError" in said
    assert "test_working.py" in said
    assert "secret" not in said


def test_of_several_processes_of_one_command_the_first_one_holds_it(tmp_path, monkeypatch):
    with working(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with working(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="an output file must be writable"),
        working(tmp_path / "file" / "run"),
    ):
        pass
    assert holder(Path("/nowhere")) is None


def test_where_the_system_has_no_locks_it_is_said_and_the_work_is_done(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("palette.working.fcntl", None)
    with caplog.at_level(logging.WARNING, "palette"), working(tmp_path / "run"):
        (tmp_path / "run" / "done").touch()
    assert (tmp_path / "run" / "done").exists()
    assert "has no locks" in caplog.text
