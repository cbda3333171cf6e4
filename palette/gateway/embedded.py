"""The backend in this process: the backbone with one certified adapter mounted at a time.

One thread runs the model. Requests wait in one line; those at its head that want the same adapter grow
together, and whoever wants another one waits until they are done and is never overtaken. Nothing of a prompt
is kept for another: the keys and values of a reply are gone with it. Adapters are made of verified bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from threading import Condition, Lock, Thread

from palette.adapters.mounting import mounted
from palette.authorisation import Certified
from palette.backbones.backbone import Backbone
from palette.backbones.stepping import GrowingReplies, Row, longest
from palette.errors import BackboneError, GatewayError, PaletteError
from palette.gateway.asking import Asked
from palette.gateway.backend import Piece, Served, Wording, require_system
from palette.gateway.readiness import Ready, made_ready
from palette.gateway.refusals import Refused, busy, unavailable

LOGGER = logging.getLogger("palette.gateway")
BARE = ""
"""In place of a certificate's id: no adapter."""


@dataclass(eq=False)
class Job:
    """One reply that somebody waits for; ``put`` takes what is new of it to them."""

    row: Row
    certificate: str
    put: Callable[[Row | Exception], None]
    gone: bool = False


@dataclass
class Embedded:
    """Serves certified adapters on one backbone in this process."""

    model: Backbone
    together: int = 8
    """Replies that grow together at most."""
    waiting: int = 64
    """Requests that may wait; more are told to come again."""
    _ready: dict[str, Ready] = field(default_factory=dict, repr=False)
    _line: deque[Job] = field(default_factory=deque, repr=False)
    _changed: Condition = field(default_factory=Condition, repr=False)
    _mounting: Lock = field(default_factory=Lock, repr=False)
    """Held while adapters are put on the model and taken off."""
    _thread: Thread | None = field(default=None, repr=False)
    _stopping: bool = field(default=False, repr=False)
    _longest: int | None = field(default=None, repr=False)

    @property
    def backbone(self) -> str:
        """The digest of the backbone, as certificates name it."""
        return self.model.fingerprint

    async def start(self, certificates: Sequence[Served]) -> None:
        """Loads each adapter, and asks its canaries; one that fails is unavailable, and the log says why.

        Raises:
            BackboneError: if the model cannot be served in process.
        """
        self._longest = longest(self.model)
        await asyncio.to_thread(self._load, certificates)
        self._thread = Thread(target=self._work, name="palette-model", daemon=True)
        self._thread.start()

    async def add(self, certificates: Sequence[Served]) -> None:
        """Loads these too, between two batches, and asks their canaries.

        Raises:
            GatewayError: if one of them is not served then.
        """

        def load() -> None:
            with self._mounting:
                self._load(certificates)

        await asyncio.to_thread(load)
        for each in certificates:
            if each.facts.backbone == self.backbone and each.facts.id not in self._ready:
                raise GatewayError("an adapter must reply as it was certified", got="another reply, or none")

    def reply(self, asked: Asked, certificate: Certified, tenant: str) -> AsyncGenerator[Piece]:
        """The replies, piece by piece.

        Raises:
            Refused: if the adapter did not load, the line is full, or the prompt is too long.
        """
        return self._growing(asked, certificate.id, certificate.id)

    def bare(self, asked: Asked, certificate: Certified) -> AsyncGenerator[Piece]:
        """The backbone's own replies to what a certificate is for: for operators, and for no tenant.

        Raises:
            Refused: if it cannot be answered.
        """
        return self._growing(asked, certificate.id, BARE)

    async def _growing(self, asked: Asked, measured: str, mounts: str) -> AsyncGenerator[Piece]:
        """Replies to a prompt as a certificate was measured, with the adapter of ``mounts``."""
        if measured not in self._ready:
            raise unavailable("adapter_not_loaded")
        prompt = await asyncio.to_thread(self._rendered, asked, self._ready[measured])
        loop, news = asyncio.get_running_loop(), asyncio.Queue[tuple[int, int, str | None] | Exception]()
        jobs = [
            self._job(asked, mounts, prompt, choice, _putting(loop, news, choice))
            for choice in range(asked.n)
        ]
        self._enqueue(jobs)
        words = [Wording(self.model.decode, asked.stop) for _ in jobs]
        going = set(range(asked.n))
        try:
            while going:
                told = await news.get()
                if isinstance(told, Exception):
                    raise told
                choice, count, finish = told
                if choice not in going:
                    continue
                said = jobs[choice].row.said[:count]
                new, stopped = words[choice].new(said, ended=finish is not None)
                finish = "stop" if stopped else finish
                if finish is not None:
                    going.discard(choice)
                    jobs[choice].gone = True
                if new or finish:
                    yield Piece(choice, new, count, len(prompt), finish)
        finally:
            for job in jobs:
                job.gone = True
            with self._changed:
                self._changed.notify()

    async def close(self) -> None:
        """Ends the thread, once the step that it is in is done."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _rendered(self, asked: Asked, ready: Ready) -> list[int]:
        require_system(asked, ready.served)
        try:
            prompt = ready.backbone.render(
                [{"role": one.role, "content": one.content} for one in asked.messages]
            )
        except BackboneError:
            raise Refused(
                400, "invalid_value", "the model's chat template does not take such messages"
            ) from None
        needed = asked.max_tokens if asked.stated else 1
        if self._longest is not None and len(prompt) + needed > self._longest:
            raise Refused(
                400,
                "context_length_exceeded",
                f"prompt and max_tokens must be at most {self._longest} tokens together, "
                f"got {len(prompt)} and {needed}",
            )
        return prompt

    def _job(
        self,
        asked: Asked,
        certificate: str,
        prompt: list[int],
        choice: int,
        put: Callable[[Row | Exception], None],
    ) -> Job:
        room = asked.max_tokens if self._longest is None else self._longest - len(prompt)
        row = Row(
            prompt,
            min(asked.max_tokens, room),
            asked.temperature,
            asked.top_p,
            # Choices of one seed are not one and the same.
            None if asked.seed is None else (asked.seed + choice) % 2**63,
            asked.presence_penalty,
            asked.frequency_penalty,
        )
        return Job(row, certificate, put)

    def _enqueue(self, jobs: Sequence[Job]) -> None:
        with self._changed:
            if self._stopping or self._thread is None or not self._thread.is_alive():
                raise unavailable()
            if len(self._line) + len(jobs) > self.waiting:
                raise busy()
            self._line.extend(jobs)
            self._changed.notify()

    def _load(self, certificates: Sequence[Served]) -> None:
        for each in certificates:
            if each.facts.backbone != self.backbone:
                continue
            try:
                self._ready[each.facts.id] = made_ready(self.model, each)
            except PaletteError as error:
                LOGGER.error("the adapter of certificate %s is not served: %s", each.facts.id[:12], error)

    def _work(self) -> None:
        """Runs the model until it is told to stop: batch after batch, each of one adapter."""
        while True:
            with self._changed:
                while not self._line and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    left = list(self._line)
                    self._line.clear()
                    break
                certificate = self._line[0].certificate
            with self._mounting:
                self._batch(certificate)
        for job in left:
            job.put(unavailable())

    def _batch(self, certificate: str) -> None:
        """Replies with one adapter, until nobody at the head of the line wants it."""
        growing = GrowingReplies(self.model, self.together)
        jobs: dict[Row, Job] = {}
        try:
            with ExitStack() as stack:
                stack.enter_context(self._mounted(certificate))
                while not self._stopping:
                    for job in self._joining(certificate, growing):
                        jobs[job.row] = job
                        growing.join(job.row)
                        job.put(job.row)
                    for row in [row for row in growing.rows if jobs[row].gone]:
                        growing.drop(row)
                    if not growing.rows:
                        break
                    for row in growing.step():
                        jobs[row].put(row)
        except Exception as error:
            # What the model's libraries say is the log's; who waits is told that there is no reply.
            LOGGER.error("a batch failed: %s", type(error).__name__)
            for job in jobs.values():
                job.put(unavailable())
        for job in jobs.values():
            if job.row.finish is None:
                job.put(unavailable())

    def _mounted(self, certificate: str) -> AbstractContextManager[object]:
        if certificate == BARE:
            return nullcontext()
        return mounted(self.model.model, self._ready[certificate].adapter)

    def _joining(self, certificate: str, growing: GrowingReplies) -> Iterable[Job]:
        """Those at the head of the line that may join, one by one."""
        while len(growing.rows) < growing.capacity:
            with self._changed:
                while self._line and self._line[0].gone:
                    self._line.popleft()
                if not self._line or self._line[0].certificate != certificate:
                    return
                job = self._line.popleft()
            yield job


def _putting(
    loop: asyncio.AbstractEventLoop,
    news: asyncio.Queue[tuple[int, int, str | None] | Exception],
    choice: int,
) -> Callable[[Row | Exception], None]:
    """What takes a row's state of this instant from the model's thread to the loop's."""

    def put(what: Row | Exception) -> None:
        told = what if isinstance(what, Exception) else (choice, len(what.said), what.finish)
        try:
            loop.call_soon_threadsafe(news.put_nowait, told)
        except RuntimeError:
            # The loop has ended, and nobody waits.
            return

    return put
