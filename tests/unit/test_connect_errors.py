"""Bad records and outages: what is raised, logged, sent to the dead letters; and when it is tried again."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headrace.connect.errors_report import Errors, Rejected
from headrace.connect.errors_retry import Abandoned, Patience, delays
from headrace.connect.sink_in import Batch, joined
from headrace.connect.spec import spec_of
from headrace.connect.tasks import trace_of
from headrace.errors import Retriable, UserError
from headrace.records import Column, Records
from headrace.testing import Record

pytestmark = pytest.mark.unit

BAD = Rejected(stage="VALUE_CONVERTER", by="a.Class", reasons=("one", "two"), where="t/3@7", value=b"raw", key=b"k",
               headers=[("h", b"1")], timestamp_ms=5, topic="t", partition=3, offset=7)


def errors(**keys: str) -> Errors:
    config = {"name": "store", "connector.class": "FileSink", "file": "x.jsonl", "topics": "t",
              **{key.replace("__", "."): value for key, value in keys.items()}}
    spec, problems = spec_of(config, Path("/nowhere"))
    assert spec is not None, problems
    return Errors(spec, 2)


def test_without_tolerance_the_first_is_raised_with_what_to_do() -> None:
    with pytest.raises(UserError, match="t/3@7: one; two") as told:
        errors().judge([BAD, BAD])
    assert "set errors.tolerance=all" in str(told.value)


def test_dead_letters_have_the_record_and_kafka_connects_headers() -> None:
    made = errors(errors__tolerance="all", errors__deadletterqueue__topic__name="dead")
    [part] = made.judge([BAD])
    assert (part.topic, part.values, part.keys, part.timestamps_ms) == ("dead", [b"raw"], [b"k"], [5])
    assert [name.removeprefix("__connect.errors.") for name, _ in part.headers[0]] == [
        "h", "topic", "partition", "offset", "connector.name", "task.id", "stage", "class.name", "exception.class.name",
        "exception.message", "exception.stacktrace"]
    headers = dict(part.headers[0])
    assert headers["__connect.errors.partition"] == b"3"
    assert headers["__connect.errors.task.id"] == b"2"
    assert headers["__connect.errors.exception.message"] == b"one; two"


@pytest.mark.parametrize(("keys", "with_headers"), [
    ({}, True), ({"errors__deadletterqueue__context__headers__enable": "false"}, False),
    ({"connector__class": "FileStreamSink"}, False),
    ({"connector__class": "FileStreamSink", "errors__deadletterqueue__context__headers__enable": "true"}, True)])
def test_context_headers_can_be_left_out(keys: dict[str, str], with_headers: bool) -> None:
    made = errors(errors__tolerance="all", errors__deadletterqueue__topic__name="dead", **keys)
    assert (len(made.headers(BAD)) > 1) is with_headers


@pytest.mark.parametrize(("keys", "told", "shown"), [
    ({}, True, False), ({"errors__log__enable": "false"}, False, False),
    ({"errors__log__include__messages": "true"}, True, True),
    ({"errors__deadletterqueue__topic__name": "dead"}, False, False),
    ({"errors__deadletterqueue__topic__name": "dead", "errors__log__enable": "true"}, True, False)])
def test_what_the_log_is_told(keys: dict[str, str], told: bool, shown: bool, caplog: pytest.LogCaptureFixture) -> None:
    errors(errors__tolerance="all", **keys).judge([BAD] * 30)
    assert len(caplog.records) == (21 if told else 0)
    assert any("raw" in record.__dict__ for record in caplog.records) is shown


def test_secrets_are_in_no_dead_letter_and_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hush-hush")
    made = errors(errors__tolerance="all", errors__deadletterqueue__topic__name="dead",
                  consumer__override__sasl__password="${env:A_SECRET}")
    leaky = Rejected(stage="TASK_PUT", by="x", reasons=("refused hush-hush",), where="t/0@1", value=None, offset=1)
    assert b"hush" not in b"".join(value or b"" for _, value in made.headers(leaky))
    try:
        raise RuntimeError("no route to me:hush-hush@there")
    except RuntimeError as error:
        trace = trace_of(error, made.spec)
    assert "no route to me:[hidden]@there" in trace
    assert "test_connect_errors.py" in trace


def test_delays_double_from_300_ms_and_then_jitter() -> None:
    wanted = delays(60)
    first = [next(wanted) for _ in range(40)]
    assert first[:8] == pytest.approx([0.3, 0.6, 1.2, 2.4, 4.8, 9.6, 19.2, 38.4])
    assert all(0 <= one <= 60 for one in first[8:])
    assert len(set(first[8:])) > 20
    assert [next(delays(0.1)) <= 0.1 for _ in range(20)] == [True] * 20


def patience(timeout_s: float | None, *, abandoned: bool = False) -> tuple[Patience, list[tuple[int, float]]]:
    told: list[tuple[int, float]] = []
    return Patience(timeout_s, 0.3, time.sleep, lambda: abandoned, lambda error, n, s: told.append((n, s))), told


def test_an_outage_is_tried_again_until_the_time_is_over() -> None:
    tries: list[float] = []

    def fail() -> None:
        tries.append(time.monotonic())
        raise Retriable("away", retry_after_s=0)

    made, told = patience(0.5)
    with pytest.raises(Retriable):
        made.insist(fail)
    assert len(tries) >= 3
    assert tries[-1] - tries[0] >= 0.5, "the last try is at the end of the time"
    assert [n for n, _ in told] == list(range(1, len(tries)))
    assert tries[1] - tries[0] >= 0.29
    with pytest.raises(Retriable):
        patience(0)[0].insist(fail)
    assert patience(0)[1] == []
    with pytest.raises(Abandoned):
        patience(None, abandoned=True)[0].insist(fail)


def test_a_wait_that_the_other_side_asks_for_is_kept() -> None:
    tries: list[float] = []

    def once() -> str:
        tries.append(time.monotonic())
        if len(tries) < 2:
            raise Retriable("slow down", retry_after_s=0.7)
        return "done"

    assert patience(None)[0].insist(once) == "done"
    assert [b - a >= 0.69 for a, b in pairwise(tries)] == [True]


def column(*values: object) -> Column:
    return Column(pa.array(values))


def test_structures_of_keys_and_values_meet() -> None:
    values = [(np.array([0, 2, 3]), column(0, 2, 3)), (np.array([1, 5]), column("b", "f"))]
    keys = [(np.array([0, 1, 2]), column("k0", "k1", "k2")), (np.array([3, 4]), column(3, 4))]
    found = [(at.tolist() if at is not None else None, value.values.to_pylist(), key.values.to_pylist())
             for at, value, key in joined(values, keys, 6)]
    assert found == [([0, 2], [0, 2], ["k0", "k2"]), ([3], [3], [3]), ([1], ["b"], ["k1"])]
    whole = [(np.arange(2), column(1, 2))]
    assert next(iter(joined(whole, whole, 2)))[0] is None


def test_a_batch_without_what_was_refused() -> None:
    n = 4
    records = Records(topic="t", value=column(*range(n)), key=Column.nothing(n), index=np.arange(10, 10 + n),
                      timestamps_ms=np.zeros(n, np.int64))
    batch = Batch([Record(b"x")] * 20, {("t", 0): 20}, [records])
    left = batch.without({11: "bad", 13: "bad"})
    assert [one.value.values.to_pylist() for one in left.records] == [[0, 2]]
    assert left.ends == batch.ends
    assert batch.without(dict.fromkeys(range(10, 14), "bad")).records == []
