"""`dispatch`: requests to train in, runs somewhere, and what became of them out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from headrace.batch import Batch, Span
from headrace.config import Config
from headrace.control import Retrain, RetrainResult, digest
from headrace.errors import Retriable, UserError
from headrace.loop.dispatch import Refused, ResourcesConfig, Status, dispatcher, request_from_json
from headrace.loop.dispatch import breaker as breakers
from headrace.loop.dispatch import queue as queues
from headrace.loop.dispatch.breaker import Breaker, BreakerConfig
from headrace.loop.dispatch.queue import Entry, Queue, QueueConfig, Turned
from headrace.loop.steps import Said, batch_of, events_of, expect, one_partition, read, shape, store, write
from headrace.processor import Context, Processor
from headrace.secrets import KNOWN
from headrace.state import View

log = logging.getLogger("headrace.dispatch")
TOLD = frozenset(each.name for each in fields(RetrainResult)) - {
    "id", "at", "trigger", "model", "status", "dispatcher", "run", "champion", "spec", "reason", "ranges", "holdout",
    "attempts", "asked_at"}
"""What a run may say of itself in its result; the rest we know."""
REFUSED_S = 30.0
"""Before a run is asked after again that we were refused an answer about."""


class DispatchConfig(Config):
    """Where trainings run, and how many at a time."""

    to: Literal["local", "airflow", "kubeflow", "kubernetes", "webhook"] = Field(
        "local", description="Who runs them.")
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="That dispatcher's own settings.")
    models: list[str] | None = Field(None, description="The models whose requests are met here; all, if left out.")
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig.model_construct,
                                       description="What a run may take.")
    queue: QueueConfig = Field(default_factory=QueueConfig.model_construct, description="How many wait and run.")
    breaker: BreakerConfig = Field(default_factory=BreakerConfig.model_construct,
                                   description="When to leave a dispatcher that fails alone.")
    poll_s: float = Field(0.5, gt=0, description="Seconds between two looks at a run.")


class Dispatch(Processor):
    """Reads `headrace.retrain`, which has one partition; says `started`, and then `succeeded`, `failed` or `refused`.

    A request is written down before it is handed over, and handed over again after a crash: whoever runs it knows it
    by its id. So there is one run for each, and each of its statuses is said once, in the transaction that forgets it.
    """

    Config: ClassVar[type[Config]] = DispatchConfig
    own_rows: ClassVar[bool] = True
    main: ClassVar[str] = "result"
    stateful: ClassVar[bool] = True
    ticks: ClassVar[bool] = True

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Raises SchemaError for rows that are no requests, ConfigError for settings the dispatcher does not know."""
        expect(Retrain, schema, ("id", "model", "spec", "ranges"))
        config: DispatchConfig = self.config
        self._dispatcher = dispatcher(config.to, config.with_, project=self.project)
        self._shape = shape(RetrainResult)
        return {"result": self._shape}

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        """Requests are queued; `tick` does the rest."""
        config: DispatchConfig = self.config
        view = store(ctx)
        queue = Queue.from_json(read(view, "queue"))
        said = []
        for request, at in events_of(batch, Retrain):
            if config.models is not None and request.model not in config.models:
                continue
            fresh = request.id not in queue.entries and request.id not in queue.done
            queue, turned = queues.enqueue(queue, config.queue, id=request.id, model=request.model,
                                           priority=request.priority, now_ms=ctx.now_ms())
            if fresh:
                write(view, _key(request.id), {"request": request.to_json(), "at": [at.topic, at.partition,
                                                                                    at.offset_last]})
            if turned:
                said.append(self._over(view, turned.entry, "refused", turned.reason, ctx))
            ctx.count("dispatch", "queued" if fresh else "repeated", 1)
        write(view, "queue", queue.to_json())
        return {"result": batch_of(said, self._shape)} if said else {}

    def tick(self, ctx: Context) -> Mapping[str, Batch]:
        """Hand over what was claimed, ask after what runs, claim what may go next: it leaves once that is committed."""
        if not one_partition(ctx):
            return {}
        config: DispatchConfig = self.config
        view, now_ms = store(ctx), ctx.now_ms()
        was, was_breaker = read(view, "queue"), read(view, "breaker")
        turn = _Turn(self, view, ctx, Queue.from_json(was), Breaker.from_json(was_breaker))
        for entry in queues.overdue(turn.queue, config.queue, now_ms):
            turn.give_up(entry)
        for entry in queues.to_submit(turn.queue, now_ms):
            turn.submit(entry)
        for entry in queues.to_poll(turn.queue, now_ms):
            turn.poll(entry)
        queue = queues.claim(turn.queue, config.queue, now_ms)
        for key, before, after in (("queue", Queue.from_json(was), queue),
                                   ("breaker", Breaker.from_json(was_breaker), turn.breaker)):
            if after != before:
                write(view, key, after.to_json())
        return {"result": batch_of(turn.said, self._shape)} if turn.said else {}

    def request(self, view: View, trigger: str) -> tuple[Retrain, Span]:
        held = read(view, _key(trigger))
        topic, partition, offset = held["at"]
        return request_from_json(held["request"]), Span(topic, partition, offset, offset)

    def _over(self, view: View, entry: Entry, status: str, reason: str, ctx: Context, *, run: str | None = None,
              told: Mapping[str, Any] | None = None) -> Said:
        """The event of a status; a final one forgets the request."""
        request, source = self.request(view, entry.id)
        if status != "started":
            view.delete([_key(entry.id).encode()])
        ctx.count("dispatch", status, 1)
        own = {name: value for name, value in (told or {}).items() if name in TOLD and value is not None}
        fixed = {"run": run or entry.run, "champion": request.champion, "spec": request.spec,
                 "reason": KNOWN.text(reason), "ranges": request.ranges, "holdout": request.holdout,
                 "attempts": max(entry.attempts, 1),
                 "asked_at": request.at}
        event = RetrainResult(id=digest(entry.id, status), trigger=entry.id, model=entry.model, status=status,
                              dispatcher=self.config.to, at=datetime.fromtimestamp(ctx.now_ms() / 1000, UTC),
                              **{**own, **fixed})
        return Said(event, entry.model.encode(), source)


class _Turn:
    """One tick's work: the queue and the breaker as it changes them, and what is to be said."""

    def __init__(self, step: Dispatch, view: View, ctx: Context, queue: Queue, breaker: Breaker) -> None:
        self.step, self.view, self.ctx, self.queue, self.breaker = step, view, ctx, queue, breaker
        self.config: DispatchConfig = step.config
        self.now_ms = ctx.now_ms()
        self.poll_ms = self.now_ms + int(self.config.poll_s * 1000)
        self.said: list[Said] = []

    def submit(self, entry: Entry) -> None:
        self.breaker, allowed = breakers.permit(self.breaker, self.config.breaker, self.now_ms)
        if not allowed:
            return
        request, _ = self.step.request(self.view, entry.id)
        try:
            status = self.step._dispatcher.submit(request, self.config.resources.resources())
        except Retriable as error:
            self._failed(error)
            self.queue, turned = queues.retry(self.queue, entry.id, self.config.queue, self.now_ms, reason=str(error),
                                              retry_after_s=error.retry_after_s)
            self._turned(turned)
            return
        except UserError as error:
            kind = "refused" if isinstance(error, Refused) else "failed"
            self._end(entry, kind, str(error))
            return
        self.breaker = breakers.succeeded()
        self.queue = queues.started(self.queue, entry.id, status.run, poll_ms=self.poll_ms)
        if entry.run is None:
            self.said.append(self.step._over(self.view, entry, "started", "", self.ctx, run=status.run))
        self._ended(self.queue.entries[entry.id], status)

    def poll(self, entry: Entry) -> None:
        if entry.id not in self.queue.entries:
            return
        self.breaker, allowed = breakers.permit(self.breaker, self.config.breaker, self.now_ms)
        if not allowed:
            return
        try:
            status = self.step._dispatcher.poll(entry.id, entry.run)
        except (Retriable, UserError) as error:  # refused: a password that no longer holds, say; the run goes on there
            self._failed(error)
            wait_s = error.retry_after_s if isinstance(error, Retriable) else REFUSED_S
            self.queue = queues.polled(self.queue, entry.id, poll_ms=self.now_ms + int(wait_s * 1000))
            return
        self.breaker = breakers.succeeded()
        if status.state == "unknown":
            self.queue, turned = queues.lost(self.queue, entry.id, self.config.queue, self.now_ms)
            self._turned(turned)
            return
        self.queue = queues.polled(self.queue, entry.id, poll_ms=self.poll_ms, run=status.run)
        self._ended(self.queue.entries[entry.id], status)

    def give_up(self, entry: Entry) -> None:
        """A run that tells no end."""
        self._cancel(entry)
        self._end(entry, "failed", f"no end after {self.config.queue.running_s_max:g} s")

    def _ended(self, entry: Entry, status: Status) -> None:
        if not status.over:
            return
        strange = _strange(status.result or {}, self.step._shape)
        if strange:
            told = {name: value for name, value in (status.result or {}).items() if name not in strange}
            why = f"{status.reason}\n" if status.reason else ""
            status = replace(status, state="failed", result=told, reason=why + "what it says of itself cannot be told "
                             "on: " + "; ".join(f"{name} is {value}" for name, value in strange.items()))
        self._end(entry, status.state, status.reason, status)

    def _end(self, entry: Entry, kind: str, reason: str, status: Status | None = None) -> None:
        self.queue = queues.done(self.queue, entry.id, self.config.queue)
        told = status.result if status else None
        self.said.append(self.step._over(self.view, entry, kind, reason, self.ctx,
                                         run=status.run if status else None, told=told))

    def _turned(self, turned: Turned | None) -> None:
        if turned:  # the queue has forgotten it already; there may be a run of it all the same
            self._cancel(turned.entry)
            self.said.append(self.step._over(self.view, turned.entry, "failed", turned.reason, self.ctx))

    def _cancel(self, entry: Entry) -> None:
        try:
            self.step._dispatcher.cancel(entry.id, entry.run)
        except (Retriable, UserError) as error:
            log.warning("not cancelled", extra={"trigger": entry.id, "reason": str(error)})

    def _failed(self, error: Retriable | UserError) -> None:
        log.warning("dispatcher trouble", extra={"dispatcher": self.config.to, "reason": str(error)})
        wait_s = error.retry_after_s if isinstance(error, Retriable) else 0.0
        self.breaker = breakers.failed(self.breaker, self.config.breaker, self.now_ms, reason=str(error),
                                       retry_after_s=wait_s)


def _strange(told: Mapping[str, Any], shape: pa.Schema) -> dict[str, str]:
    """What a training program says of itself in another form than a result has: name → how. Programs are anybody's."""
    found = {}
    for name, value in told.items():
        if name not in TOLD or value is None:
            continue
        field = shape.field(name)
        try:
            pa.array([list(value.items()) if isinstance(value, Mapping) else value], field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            found[name] = f"{value!r}"[:100] + f", and not {field.type}"
    return found


def _key(trigger: str) -> str:
    return f"request {trigger}"
