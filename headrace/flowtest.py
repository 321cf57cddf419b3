"""Runs a flow's own `tests:` without a broker: the real codec, processors and sinks, and nothing else.

Each test has a plan of its own, so that no window or count of one reaches another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace import plan as planning
from headrace import poison
from headrace.batch import Headers, Outgoing, read_lineage
from headrace.codec import AvroSchema, Decoder, Encoder, UnknownSchema
from headrace.errors import UserError
from headrace.flow import FlowSpec, TestSpec
from headrace.pipeline import Outputs, Pipeline
from headrace.plan import Plan, SinkPlan, SourcePlan
from headrace.retry import Again
from headrace.rules import RAW, REASONS
from headrace.state import State
from headrace.state.bottom import Memory
from headrace.testing import Record

SOURCE_ID = 1
"""The schema id the given records are framed with; the sinks' follow."""
START_MS = 1_356_998_400_000
"""The timestamp of the first given record, 2013-01-01T00:00:00Z; each next is a millisecond later."""
REASONS_HEADER = "headrace.reasons"


@dataclass(frozen=True, slots=True)
class Result:
    """How one test ended: `problems` is empty when it passed."""

    flow: str
    test: str
    file: str
    line: int
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems


def run(path: Path, project: Path | None = None) -> list[Result]:
    """Every test of the flow in `path`, in order. Raises ConfigError when the flow does not lint."""
    first = planning.load(path, project)
    return [run_one(planning.plan(first.spec, first.project), at) for at in range(len(first.spec.tests))]


def run_one(plan: Plan, at: int) -> Result:
    """The test at index `at`, on a plan that has not run yet."""
    spec: FlowSpec = plan.spec
    test = spec.tests[at]
    try:
        problems = _difference(plan, test, _outputs(plan, test))
    except UserError as error:
        problems = [str(error)]
    return Result(plan.flow, test.name, str(plan.path), spec.line("tests", at), tuple(problems))


def _outputs(plan: Plan, test: TestSpec) -> Outputs:
    ids = {sink.name: SOURCE_ID + len(plan.sources) + at for at, sink in enumerate(plan.sinks)}
    state = State(1 << 40)
    state.assign({}, {0: Memory()})
    pipeline = Pipeline(plan, writers=_writers([s.schema for s in plan.sources]), sink_ids=ids, now_ms=lambda: START_MS,
                        state=lambda step, partition: state.small.of(partition, step), store=state.view,
                        partitions=lambda: [0])
    pipeline.open()
    try:
        given = records(plan, test.given)
        while True:
            try:
                return poison.run(pipeline, given, state, poison.Budget(plan.spec.poison))
            except Again:  # nobody waits in a test
                state.undo()
    finally:
        pipeline.close()


def _writers(schemas: Sequence[AvroSchema]) -> Any:
    def writer(schema_id: int) -> AvroSchema:
        if not SOURCE_ID <= schema_id < SOURCE_ID + len(schemas):
            raise UnknownSchema(schema_id)
        return schemas[schema_id - SOURCE_ID]

    return writer


def records(plan: Plan, given: Sequence[Mapping[str, Any] | None]) -> list[Record]:
    """What is given, as messages of partition 0, in order. Raises UserError: a value that its field cannot hold."""
    makers = {source.name: _maker(source, SOURCE_ID + at) for at, source in enumerate(plan.sources)}
    out = []
    for at, written in enumerate(given):
        name, record = plan.source.name, written
        if len(makers) > 1 and written:
            name, record = next(iter(written.items()))
        out.append(makers[name](record, at))
    return out


def _maker(source: SourcePlan, schema_id: int) -> Callable[[Mapping[str, Any] | None, int], Record]:
    """Makes messages of one source."""
    schema, key = source.schema, source.config.key
    defaults = {f["name"]: f["default"] for f in json.loads(schema.text)["fields"] if "default" in f}
    encoder = Encoder(schema, schema.arrow, schema_id)

    def make(record: Mapping[str, Any] | None, at: int) -> Record:
        keyed = None if record is None or key is None else record.get(key)
        payload = _payload(record, schema.arrow, defaults, encoder, at)
        return Record(payload, source.config.topic, 0, at, None if keyed is None else str(keyed).encode(),
                      START_MS + at)

    return make


def _payload(record: Mapping[str, Any] | None, shape: pa.Schema, defaults: Mapping[str, Any], encoder: Encoder,
             at: int) -> bytes | None:
    if record is None:
        return None
    if set(record) == {RAW}:
        try:
            return bytes.fromhex(str(record[RAW]))
        except ValueError as error:
            raise UserError(f"given record {at + 1}: `bytes` is not hexadecimal: {error}") from error
    columns = []
    for field in shape:
        value = record[field.name] if field.name in record else defaults.get(field.name)
        if value is None and not field.nullable:
            raise UserError(f"given record {at + 1}: “{field.name}” has no value, and may not be null")
        try:
            columns.append(pa.array([coerce(value, field.type)], field.type))
        except (pa.ArrowException, ValueError, TypeError, InvalidOperation, OverflowError) as error:
            raise UserError(f"given record {at + 1}: “{field.name}” cannot be {value!r}: {error}") from error
    values, _, failed = encoder.encode_checked(pa.RecordBatch.from_arrays(columns, schema=shape))
    if failed:
        raise UserError(f"given record {at + 1}: {failed[0][1]}")
    return bytes(values[0])


def coerce(value: Any, to: pa.DataType) -> Any:
    """What YAML can write, as what Arrow takes: ISO dates and times from text, decimals from text or numbers."""
    if value is None:
        return None
    if pa.types.is_struct(to):
        return {field.name: coerce(value.get(field.name), field.type) for field in to.fields}
    if pa.types.is_map(to):
        return [(k, coerce(v, to.item_type)) for k, v in value.items()]
    if pa.types.is_list(to) or pa.types.is_large_list(to):
        return [coerce(item, to.value_type) for item in value]
    for is_kind, make in _FROM_TEXT:
        if is_kind(to) and isinstance(value, str | int | float) and not isinstance(value, bool):
            return make(value)
    if pa.types.is_floating(to) and isinstance(value, int):
        return float(value)
    return value


def _moment(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


_FROM_TEXT: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_timestamp, _moment),
    (pa.types.is_date, lambda v: date.fromisoformat(v) if isinstance(v, str) else v),
    (pa.types.is_time, lambda v: time.fromisoformat(v) if isinstance(v, str) else v),
    (pa.types.is_duration, lambda v: timedelta(milliseconds=v) if not isinstance(v, str) else v),
    (pa.types.is_decimal, lambda v: Decimal(str(v))),
)


def _difference(plan: Plan, test: TestSpec, outputs: Outputs) -> list[str]:
    """What is not as the test expects, a line each."""
    out = []
    for name, wanted in test.expect.items():
        sink, got = plan.sink(name), outputs.sinks.get(name)
        count = 0 if got is None else len(got)
        expected = wanted if isinstance(wanted, int) else len(wanted)
        if count != expected:
            out.append(f"{name}: {count} record{'s' * (count != 1)}, {expected} expected" + _held_back(plan, outputs))
        elif isinstance(wanted, list) and got is not None:
            for at, (record, want) in enumerate(zip(read(plan, sink, got), wanted, strict=True)):
                out += [f"{name}: record {at + 1}: {problem}" for problem in _unlike(record, want, _shape(plan, sink))]
    return out


def _shape(plan: Plan, sink: SinkPlan) -> pa.Schema:
    """The fields that a sink's records can have: those of a quarantine are of any source."""
    schemas = [sink.schema] if sink.schema else [source.schema for source in reversed(plan.sources)]
    return pa.schema(list({field.name: field for schema in schemas for field in schema.arrow}.values()))


def read(plan: Plan, sink: SinkPlan, got: Outgoing) -> list[dict[str, Any]]:
    """What a sink got, as records; those of a quarantine with the ids of their `reasons`, and no more if the payload
    cannot be read."""
    out: list[dict[str, Any]] = [{} for _ in got.values]
    if sink.schema is not None:
        _decode(sink.schema, got, range(len(out)), out)
        return out
    from_topic = [span.topic if (span := read_lineage(headers)) else None for headers in got.headers]
    for source in plan.sources:
        _decode(source.schema, got, [at for at, topic in enumerate(from_topic) if topic == source.config.topic], out)
    for record, headers in zip(out, got.headers, strict=True):
        record[REASONS] = _reasons(headers)
    return out


def _decode(schema: AvroSchema, got: Outgoing, which: Sequence[int], out: list[dict[str, Any]]) -> None:
    decoded = Decoder(schema, lambda schema_id: schema).decode([got.values[at] for at in which])
    index = range(len(which)) if decoded.index is None else decoded.index.tolist()
    for at, row in zip(index, decoded.rows.to_pylist(), strict=True):
        out[which[at]] = row


def _reasons(headers: Headers) -> list[str]:
    held = next((value for name, value in headers if name == REASONS_HEADER and value), b"[]")
    return [reason.partition(":")[0] for reason in json.loads(held)]


def _held_back(plan: Plan, outputs: Outputs) -> str:
    """Why records are in quarantine, which is mostly the answer to a wrong count."""
    why = [reason for sink in plan.sinks if sink.schema is None and sink.name in outputs.sinks
           for headers in outputs.sinks[sink.name].headers for reason in _reasons(headers)]
    return f" (held back: {', '.join(dict.fromkeys(why))})" if why else ""


def _unlike(record: Mapping[str, Any], want: Mapping[str, Any], shape: pa.Schema) -> list[str]:
    out = []
    for name, value in want.items():
        got = record.get(name)
        expected = coerce(value, shape.field(name).type) if name in shape.names else value
        if name == REASONS and isinstance(expected, str):
            expected = [expected]
        if not _same(got, expected):
            out.append(f"{name} is {got!r}, {expected!r} expected")
    return out


def _utc(moment: datetime) -> datetime:
    """A time without a zone is in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _same(got: Any, expected: Any) -> bool:
    """Equal, floats to nine digits; of a nested record the fields written."""
    if isinstance(expected, Mapping):
        return isinstance(got, Mapping) and all(_same(got.get(k), v) for k, v in expected.items())
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(_same, got, expected))
    if isinstance(expected, float) and isinstance(got, float | int):
        return math.isclose(got, expected, rel_tol=1e-9) or (math.isnan(got) and math.isnan(expected))
    if isinstance(got, datetime) and isinstance(expected, datetime):
        return _utc(got) == _utc(expected)
    return bool(got == expected)
