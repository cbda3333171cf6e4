"""The transparency log: each line follows from the one before, and nothing of it can be taken back."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palette.certificates import log as log_module
from palette.certificates.log import FIRST, Entry, enter, read_log, require_entered
from palette.errors import OutputError, SignatureError
from palette.signing import Envelope, sign
from tests.certificates.conftest import NOW, Office


def statements(office: Office, count: int) -> list[Envelope]:
    return [sign("text/plain", json.dumps({"n": n}).encode(), [office.certifier]) for n in range(count)]


@pytest.fixture
def log(tmp_path: Path, office: Office) -> Path:
    path = tmp_path / "log" / "log.jsonl"
    enter(path, statements(office, 2), NOW)
    enter(path, statements(office, 4)[2:], NOW)
    return path


def test_what_was_signed_is_entered_with_its_key_and_when(log: Path, office: Office) -> None:
    entries = read_log(log)
    assert [entry.number for entry in entries] == [0, 1, 2, 3]
    assert [entry.statement for entry in entries] == [each.digest for each in statements(office, 4)]
    assert {entry.keys for entry in entries} == {(office.certifier.public.id,)}
    assert {(entry.entered, entry.kind) for entry in entries} == {("2026-11-30T12:00:00Z", "text/plain")}
    assert [entry.previous for entry in entries] == [FIRST, *(entry.digest for entry in entries[:-1])]
    require_entered(log, statements(office, 4))
    assert read_log(log.with_name("none")) == []


def test_a_statement_that_is_not_in_it_is_told(log: Path, office: Office) -> None:
    with pytest.raises(SignatureError, match="every statement of a certificate must stand in the log"):
        require_entered(log, statements(office, 5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_line_can_be_changed_left_out_or_put_elsewhere(log: Path, data: st.DataObject) -> None:
    lines = log.read_text().splitlines()
    before = "\n".join(lines) + "\n"
    way = data.draw(st.sampled_from(["drop", "swap", "byte", "repeat"]))
    place = data.draw(st.integers(0, len(lines) - 2))
    if way == "drop":
        del lines[place]
    elif way == "swap":
        lines[place], lines[place + 1] = lines[place + 1], lines[place]
    elif way == "repeat":
        lines.insert(place, lines[place])
    else:
        at = data.draw(st.integers(0, len(lines[place]) - 1))
        sign = data.draw(st.characters(codec="ascii").filter(lambda c: c != lines[place][at]))
        lines[place] = lines[place][:at] + sign + lines[place][at + 1 :]
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(SignatureError) as caught:
        read_log(log)
    assert "\n" not in str(caught.value)
    log.write_text(before)


def test_a_log_without_its_chain_would_not_notice(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    with pytest.raises(SignatureError, match="got another line 2"):
        read_log(log)
    loose: Any = Entry(Anything(), "", "", (), "", Anything())  # type: ignore[arg-type]
    monkeypatch.setattr(Entry, "line", Anything())
    monkeypatch.setattr(Entry, "digest", "")
    monkeypatch.setattr(log_module, "_entry", lambda *_: loose)
    assert len(read_log(log)) == 3


class Anything:
    """What is equal to anything: a check that checks nothing."""

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


def test_a_line_that_was_cut_off_is_told(log: Path) -> None:
    log.write_text(log.read_text()[:-1])
    with pytest.raises(SignatureError, match="must end with a whole line"):
        read_log(log)


@pytest.mark.parametrize("line", ["{}", "[]", "3", "{", '{"format": "palette-log/1"}', "[" * 9000])
def test_a_line_of_another_form_is_one_sentence(tmp_path: Path, line: str) -> None:
    (tmp_path / "log").write_text(line + "\n")
    with pytest.raises(SignatureError, match="of the format palette-log/1, got line 1"):
        read_log(tmp_path / "log")


def test_several_who_sign_at_once_keep_one_chain(tmp_path: Path, office: Office) -> None:
    path = tmp_path / "log.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: enter(path, [each], NOW), statements(office, 24)))
    assert {entry.statement for entry in read_log(path)} == {each.digest for each in statements(office, 24)}


def test_a_log_that_does_not_hold_is_not_gone_on_with(log: Path, office: Office) -> None:
    before = log.read_text()[:-5]
    log.write_text(before)
    with pytest.raises(SignatureError):
        enter(log, statements(office, 1), NOW)
    assert log.read_text() == before


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, office: Office) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name another file with --log"):
        enter(tmp_path / "file" / "log", statements(office, 1), NOW)
