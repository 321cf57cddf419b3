"""Control events: one shape in Avro, in Arrow and in Python."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import avro.schema
import pytest

from headrace.control import EVENTS, Alert, ControlEvent, event_id
from headrace.resources import content

pytestmark = pytest.mark.unit

RECORD: dict[str, Any] = {
    "id": "ab", "flow": "arrivals", "step": "watch", "topic": "flights.arrivals", "partition": 0, "window": 15744,
    "offset_first": 100, "offset_last": 1029, "window_start": datetime(2013, 2, 8, 5, tzinfo=UTC),
    "window_end": datetime(2013, 2, 9, 5, tzinfo=UTC), "measure": "share", "condition": "cancelled", "rows": 930,
    "matched": 472, "observed": 0.5075, "threshold": 0.35, "at": datetime(2013, 2, 9, 5, tzinfo=UTC),
    "severity": "critical", "message": "flights are cancelled"}


@pytest.mark.parametrize("event", EVENTS.values(), ids=str)
def test_the_class_the_avro_schema_and_the_arrow_schema_have_the_same_fields(event: type[ControlEvent]) -> None:
    written = avro.schema.parse(content(event.avsc).read_text())
    names = [f.name for f in written.fields]
    assert set(names) == {f.name for f in fields(event)}
    assert names == event.schema().arrow.names
    assert written.fullname == f"headrace.control.{event.__name__}"
    assert all(f.doc for f in written.fields)


def test_from_a_record_and_to_json() -> None:
    alert = Alert.from_record({**RECORD, "added_later": 1})
    assert alert.message == "flights are cancelled"
    told = json.loads(alert.to_json())
    assert told["kind"] == "alert"
    assert told["window_start"] == "2013-02-08T05:00:00+00:00"
    with pytest.raises(KeyError, match="message"):
        Alert.from_record({k: v for k, v in RECORD.items() if k != "message"})


def test_an_id_is_its_cause() -> None:
    assert event_id("f", "s", "t", 1, 23) == hashlib.sha256(b"f\0s\0t\x001\x0023").hexdigest()
    causes = {event_id(*cause) for cause in [("f", "s", "t", 1, 23), ("f", "s", "t", 12, 3), ("f", "st", "", 1, 23),
                                             ("fs", "", "t", 1, 23), ("f", "s", "t", 1, -23)]}
    assert len(causes) == 5
