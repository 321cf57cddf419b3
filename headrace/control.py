"""Control events: what processors tell people, trainers and running flows. Typed here, in Avro in schemas/control/.

    Verdict        headrace.verdicts          a window, a model or a challenger was judged   key: model, or flow/step
    Retrain        headrace.retrain           reason and data to train a model anew          key: model
    RetrainResult  headrace.retrain.results   what became of it                              key: model
    Switch         headrace.models            another version of a model takes over          key: model
    Alert          headrace.alerts            something to know                              key: flow/step

An event is made once per cause, in the transaction that read the cause, and its `id` is derived from the cause: who
keeps the ids it has acted on acts once, however often an event is delivered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from headrace.batch import Span
from headrace.resources import content

if TYPE_CHECKING:
    from headrace.codec import AvroSchema


def digest(*parts: object) -> str:
    """An id: sha256, in hex, of the parts' texts joined by NUL."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def event_id(flow: str, step: str, topic: str, partition: int, window: int) -> str:
    """The id of what window `window` of one source partition causes."""
    return digest(flow, step, topic, partition, window)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEvent:
    """What all events have. See the fields' doc in the avsc. Times are in UTC."""

    kind: ClassVar[str]
    """verdict | retrain | result | switch | alert"""
    home: ClassVar[str]
    """The topic it belongs on."""
    avsc: ClassVar[str]

    id: str
    at: datetime

    @classmethod
    def schema(cls) -> AvroSchema:
        """The Avro schema of the event's records."""
        from headrace import codec

        return codec.load(content(cls.avsc))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The event of a decoded record (an Arrow row as Python values); fields of later versions are passed over."""
        return cls(**{each.name: _plain(record[each.name], str(each.type)) for each in fields(cls)})

    def to_record(self) -> dict[str, Any]:
        """As a row of `schema().arrow`."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def to_json(self) -> str:
        """One line, times in ISO 8601, with `kind`."""
        return json.dumps({"kind": self.kind, **asdict(self)}, ensure_ascii=False, default=datetime.isoformat)


def _plain(value: Any, declared: str) -> Any:
    """Arrow gives a map as a list of pairs."""
    return dict(value) if declared.startswith("Mapping") and isinstance(value, list) else value


def to_ranges(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Spans as the `ranges` of an event."""
    return [{"topic": s.topic, "partition": s.partition, "offset_first": s.offset_first, "offset_last": s.offset_last}
            for s in spans]


def to_spans(ranges: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The `ranges` of an event as spans."""
    return [Span(r["topic"], r["partition"], r["offset_first"], r["offset_last"]) for r in ranges]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caused(ControlEvent):
    """An event raised on what was measured of some records: who raised it, about which, and the measure.

    `window_start` (inclusive) and `window_end` (exclusive) are None for windows of records.
    """

    flow: str
    step: str
    topic: str
    partition: int
    window: int
    offset_first: int
    offset_last: int
    window_start: datetime | None
    window_end: datetime | None
    measure: str
    condition: str | None
    rows: int
    matched: int
    observed: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(Caused):
    """Something a person, or a pager, should know. `severity` is info, warning or critical."""

    kind: ClassVar[str] = "alert"
    home: ClassVar[str] = "headrace.alerts"
    avsc: ClassVar[str] = "schemas/control/alerts.avsc"

    severity: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain(Caused):
    """There is reason, and data, to train `model` anew: the records of `ranges`, or else those counted.

    `spec` is the flow's declaration of the model as JSON; `causes` are ids of verdicts.
    """

    kind: ClassVar[str] = "retrain"
    home: ClassVar[str] = "headrace.retrain"
    avsc: ClassVar[str] = "schemas/control/retrain.avsc"

    model: str
    reason: str
    ranges: Sequence[Mapping[str, Any]] = ()
    holdout: Sequence[Mapping[str, Any]] = ()
    champion: str | None = None
    spec: str = "{}"
    priority: int = 0
    causes: Sequence[str] = ()

    def spans(self) -> list[Span]:
        """What to train on."""
        return to_spans(self.ranges) or [Span(self.topic, self.partition, self.offset_first, self.offset_last)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch(Caused):
    """`model` must give way to the version or alias `to`. `mode` is full, canary (for `share` of the keys), shadow or
    off (a canary or shadow ends). The offset in headrace.models is its epoch: the last one of a model is in force."""

    kind: ClassVar[str] = "switch"
    home: ClassVar[str] = "headrace.models"
    avsc: ClassVar[str] = "schemas/control/models.avsc"

    model: str
    to: str
    reason: str
    mode: str = "full"
    share: float = 1.0
    previous: str | None = None
    trigger: str | None = None
    verdict: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(ControlEvent):
    """Something was judged. `about` says what: schema (a source's new writer schema), contract (a window held against
    a suite), quality, drift, performance, estimate or experiment (a monitor's window), gate (a challenger), failed (a
    training came to nothing), approve, promote, rollback or retrain (a person's word)."""

    kind: ClassVar[str] = "verdict"
    home: ClassVar[str] = "headrace.verdicts"
    avsc: ClassVar[str] = "schemas/control/verdicts.avsc"

    about: str
    flow: str
    step: str
    ok: bool
    owner: str = ""
    model: str | None = None
    version: str | None = None
    topic: str | None = None
    partition: int | None = None
    window: int | None = None
    offset_first: int | None = None
    offset_last: int | None = None
    window_start: datetime | None = None
    window_end: datetime | None = None
    rows: int = 0
    labels: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)
    reasons: Sequence[str] = ()
    trigger: str | None = None
    champion: str | None = None
    detail: str | None = None
    by: str | None = None

    def key(self) -> bytes:
        return (self.model or f"{self.flow}/{self.step}").encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainResult(ControlEvent):
    """What became of a request to train. `status` is started, succeeded, failed or refused."""

    kind: ClassVar[str] = "result"
    home: ClassVar[str] = "headrace.retrain.results"
    avsc: ClassVar[str] = "schemas/control/results.avsc"

    trigger: str
    model: str
    status: str
    dispatcher: str
    run: str | None = None
    mlflow_run: str | None = None
    version: str | None = None
    candidates: Mapping[str, str] = field(default_factory=dict)
    champion: str | None = None
    data_digest: str | None = None
    ranges: Sequence[Mapping[str, Any]] = ()
    holdout: Sequence[Mapping[str, Any]] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    cpu_s: float | None = None
    peak_bytes: int | None = None
    git_commit: str | None = None
    lock_digest: str | None = None
    image_digest: str | None = None
    spec: str = "{}"
    attempts: int = 1
    reason: str = ""
    asked_at: datetime | None = None


RAISED: Mapping[str, type[Caused]] = {event.kind: event for event in (Alert, Retrain, Switch)}
"""What a `trigger` step can raise, by kind."""
EVENTS: Mapping[str, type[ControlEvent]] = {event.kind: event for event in (Alert, Retrain, Switch, Verdict,
                                                                            RetrainResult)}
"""All of them, by kind."""
