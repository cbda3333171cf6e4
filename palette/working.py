"""One command at a time works in a folder: its lock, and the log of what is said meanwhile."""

from __future__ import annotations

import json
import logging
import os
import platform
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from palette.errors import OutputError, PaletteError
from palette.files import LOCK, LOG, MARKER, unwritable

try:
    import fcntl
except ImportError:  # Windows has none.
    fcntl = None  # type: ignore[assignment]

LOGGER = logging.getLogger("palette")
"""What is logged here inside ``working`` stands in the folder's log; a caller may listen as well."""
LOGGER.setLevel(logging.INFO)
FORM = logging.Formatter("%(asctime)s %(levelname)s %(message)s")


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """Holds a folder for this process inside the block, where what is logged is kept in its log.

    The system frees the lock of a process that is gone. Of several processes that run one command the first
    one holds it. A folder that is nobody's yet, and is not made somebody's, is left as it was.

    Raises:
        OutputError: if another command works there, or the folder cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    fresh = not (folder / LOG).exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _held(folder / LOCK)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        with _logged(folder / LOG):
            yield
    except BaseException:
        if fresh and not (folder / MARKER).is_file():
            (folder / LOG).unlink(missing_ok=True)
        raise
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.close()
        for place in made:
            with suppress(OSError):
                place.rmdir()


def holder(folder: Path) -> dict[str, Any] | None:
    """The process that works in a folder, its ``pid``, ``host`` and ``since`` when; None where none does."""
    try:
        stated = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        own = stated["host"] == platform.node()
        return None if own and not psutil.pid_exists(stated["pid"]) else dict(stated)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _held(path: Path) -> Any:
    """The open lock, held."""
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            if fcntl is None:
                raise OSError
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            known = holder(path.parent)
            who = "process {pid} on {host}, since {since}".format_map(known) if known else "another one"
            raise OutputError(
                "one command at a time works in an output folder",
                got=who,
                remedy="wait for it, stop it, or choose another folder with --output",
                where=path.parent,
            ) from error
        except OSError:
            LOGGER.warning("the file system of %s has no locks, so that two commands may meet there", path)
        # Whoever held it may have removed it since it was opened.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                break
        stream.close()
    stream.truncate(0)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    stream.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
    stream.flush()
    return stream


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Writes to a file what is logged, what is warned of, and how the block ends if it does not end well."""
    handler, shown = logging.FileHandler(path, delay=True, encoding="utf-8"), warnings.showwarning
    handler.setFormatter(FORM)

    def show(message: Warning | str, category: type[Warning], *given: Any, **named: Any) -> None:
        LOGGER.warning("%s: %s", category.__name__, message)
        shown(message, category, *given, **named)

    LOGGER.addHandler(handler)
    warnings.showwarning = show
    try:
        yield
    except PaletteError as error:
        LOGGER.error("%s", error)
        raise
    except KeyboardInterrupt as stop:
        if not getattr(stop, "__notes__", ()):
            stop.add_note(f"what was done so far is kept in {path.parent}")
        LOGGER.warning("interrupted; %s", "; ".join(stop.__notes__))
        raise
    except Exception as error:
        # Not its message, which may repeat what it could not read.
        LOGGER.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        raise
    finally:
        warnings.showwarning = shown
        LOGGER.removeHandler(handler)
        handler.close()
