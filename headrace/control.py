"""Control events: what triggers raise for people, trainers and running flows. Typed here, in Avro in schemas/control/.

    Alert     headrace.alerts     something to know                      key: flow/step
    Retrain   headrace.retrain    reason and data to train a model anew   key: model
    Switch    headrace.models     another version of a model takes over   key: model

An event is made once per cause, in the transaction that read the cause, and its `id` is derived from the cause: who
keeps the ids it has acted on acts once, however often an event is delivered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from headrace.resources import content

if TYPE_CHECKING:
    from headrace.codec import AvroSchema


def event_id(flow: str, step: str, topic: str, partition: int, window: int) -> str:
    """The id of what window `window` of one source partition causes: sha256 in hex."""
    return hashlib.sha256("\0".join((flow, step, topic, str(partition), str(window))).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEvent:
    """What all events say: who raised it, about which records, and what was measured. See the fields' doc in the avsc.

    Times are in UTC; `window_start` (inclusive) and `window_end` (exclusive) are None for windows of records.
    """

    kind: ClassVar[str]
    """alert | retrain | switch: its name in a flow's `emit`."""
    home: ClassVar[str]
    """The topic it belongs on."""
    avsc: ClassVar[str]

    id: str
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
    at: datetime

    @classmethod
    def schema(cls) -> AvroSchema:
        """The Avro schema of the event's records."""
        from headrace import codec

        return codec.load(content(cls.avsc))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The event of a decoded record; fields of later versions of the schema are passed over."""
        return cls(**{field.name: record[field.name] for field in fields(cls)})

    def to_json(self) -> str:
        """One line, times in ISO 8601, with `kind`."""
        return json.dumps({"kind": self.kind, **asdict(self)}, ensure_ascii=False, default=datetime.isoformat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(ControlEvent):
    """Something a person, or a pager, should know. `severity` is info, warning or critical."""

    kind: ClassVar[str] = "alert"
    home: ClassVar[str] = "headrace.alerts"
    avsc: ClassVar[str] = "schemas/control/alerts.avsc"

    severity: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain(ControlEvent):
    """There is reason, and data, to train `model` anew: the records counted, of the offsets named."""

    kind: ClassVar[str] = "retrain"
    home: ClassVar[str] = "headrace.retrain"
    avsc: ClassVar[str] = "schemas/control/retrain.avsc"

    model: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch(ControlEvent):
    """`model` must give way to the version or alias `to`."""

    kind: ClassVar[str] = "switch"
    home: ClassVar[str] = "headrace.models"
    avsc: ClassVar[str] = "schemas/control/models.avsc"

    model: str
    to: str
    reason: str


EVENTS: Mapping[str, type[ControlEvent]] = {event.kind: event for event in (Alert, Retrain, Switch)}
"""By kind."""
