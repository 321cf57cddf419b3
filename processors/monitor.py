"""`monitor`: windows of labelled predictions in, verdicts on data, inputs and model out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from headrace.batch import Batch, Span
from headrace.config import Config
from headrace.control import Verdict, digest
from headrace.errors import SchemaError
from headrace.eventtime import Duration, by_partition, check_time, event_times
from headrace.expressions import Expression, compile_expression
from headrace.loop import abtest, drift, measures
from headrace.loop.detectors import watch
from headrace.loop.drift import DriftSpec
from headrace.loop.measures import PerformanceSpec
from headrace.loop.steps import Said, batch_of, read, registry, shape, write
from headrace.marked import nearest
from headrace.processor import Context, Partition, Processor
from headrace.windows import Axis

OFFSET = "__offset"
ROWS, MEMORY = b"r", "memory"


class MonitorWindowConfig(Config):
    """Tumbling windows by event time."""

    time: Duration = Field(description="What a window spans, e.g. 7d.")
    on: str = Field(description="The column with the event time: when a label came to be known, where there "
                    "are labels, so that a window holds what was known at its end.")
    late: Duration = Field(0, description="How far behind the latest event time a row may come and still count.")
    shift: Duration = Field(0, description="How long after a multiple of their length (since 1970, UTC) windows begin.")

    def axis(self) -> Axis:
        return Axis(self.time, self.late, self.shift)


class QualityConfig(Config):
    """When a window's data are too bad to learn from."""

    bad: str = Field(description="A SQL condition on a row that makes it a bad one; null counts as false.")
    share_max: float = Field(0.05, ge=0, le=1, description="The window is bad when more than this part of its rows is.")
    rows_min: int = Field(0, ge=0, description="The window is bad when it has fewer rows.")


class ExperimentConfig(Config):
    """A canary held against the version in charge: when the difference is sure, it is said, once."""

    arm: str = Field(description="The column that says whose row it was (`arm_as` of `predict`).")
    value: str = Field(description="A SQL number, or condition, over a labelled row: what is compared, e.g. the loss.")
    better: Literal["higher", "lower"] = Field(description="Which values are the better ones.")
    share: float | None = Field(None, gt=0, lt=1, description="The challenger's share of the rows: where they come in "
                                "another ratio, the result is void, and that is said. Not checked, if left out.")
    alpha: float = Field(0.05, gt=0, lt=1, description="How often, at most, a difference may be seen where there is "
                         "none, however often one looks.")


class MonitorConfig(Config):
    """What is looked at in each window. Each part gives a verdict a window; say at least one."""

    model: str = Field(description="The model's name in the model registry.", min_length=1)
    window: MonitorWindowConfig = Field(description="What is judged at a time.")
    label: str | None = Field(None, description="A SQL condition, or a column of 0 and 1: the truth; null where it is "
                              "not known.")
    score: str | None = Field(None, description="The column with the prediction, 0 to 1.")
    version: str = Field("model_version", description="The column with the version that predicted.")
    quality: QualityConfig | None = Field(None, description="Judge the data.")
    drift: DriftSpec | None = Field(None, description="Judge the inputs, against those the version was trained on.")
    performance: PerformanceSpec | None = Field(None, description="Judge the predictions by their labels; without "
                                                "`label`, by what their calibration makes expect.")
    experiment: ExperimentConfig | None = Field(None, description="Judge a canary against the version in charge.")
    detect: Literal["adwin", "page_hinkley"] | None = Field(
        None, description="Count changes of the loss by this detector, as a measure: for people, since it fires on "
        "any change.")


class Monitor(Processor):
    """Rows in, verdicts out, when a window closes: by positions only, so that the same records give the same verdicts.

    A window's rows are kept in state until it closes. Each source partition is judged by itself.
    """

    Config: ClassVar[type[Config]] = MonitorConfig
    own_rows: ClassVar[bool] = True
    main: ClassVar[str] = "verdict"
    stateful: ClassVar[bool] = True

    def outputs(self, schema: pa.Schema) -> Mapping[str, pa.Schema]:
        """Raises SchemaError and ExpressionError for columns and conditions that do not fit the rows."""
        config: MonitorConfig = self.config
        check_time(config.window.on, schema)
        versioned = bool(config.drift or config.score or config.experiment)
        for name in filter(None, (config.score, config.version if versioned else None)):
            if name not in schema.names:
                raise SchemaError(f"“{name}” is no column of the rows{nearest(name, schema.names)}")
        if config.performance and not config.score:
            raise SchemaError("`performance` needs `score`, the column with the prediction")
        if not (config.quality or config.drift or config.performance or config.experiment):
            raise SchemaError("nothing is judged: say `quality`, `drift`, `performance` or `experiment`")
        self._value: Expression | None = None
        if config.experiment:
            if config.experiment.arm not in schema.names:
                raise SchemaError(f"“{config.experiment.arm}” is no column of the rows"
                                  f"{nearest(config.experiment.arm, schema.names)}", hint="`predict` adds it: `arm_as`")
            self._value = compile_expression(config.experiment.value, schema, where="`value`")
        self._label = compile_expression(config.label, schema, where="`label`") if config.label else None
        self._bad: Expression | None = None
        if config.quality:
            self._bad = compile_expression(config.quality.bad, schema, where="`bad`")
            if not pa.types.is_boolean(self._bad.type):
                raise SchemaError(f"`bad` gives {self._bad.type}, and must be a condition, true or false")
        self._axis = config.window.axis()
        self._shape = shape(Verdict)
        return {"verdict": self._shape}

    def notes(self, schema: pa.Schema) -> list[str]:
        return ["judges each source partition by itself; for the model as a whole, bring its rows to a topic of one"]

    def open(self, ctx: Context) -> None:
        self._store = registry(ctx)
        self._references: dict[str, Mapping[str, Any]] = {}

    def process(self, batch: Batch, ctx: Context) -> Mapping[str, Batch]:
        """Raises Retriable while the model registry does not answer."""
        timed, times = event_times(batch.rows.column(self.config.window.on))
        ctx.count("monitor", "without_time", len(batch) - int(np.count_nonzero(timed)))
        offsets = batch.meta.offsets()
        said: list[Said] = []
        for partition, index in by_partition(batch.meta, timed):
            said += self._partition(partition, batch.rows, index, times[index], offsets[index], ctx)
        return {"verdict": batch_of(said, self._shape)} if said else {}

    def _partition(self, partition: Partition, rows: pa.RecordBatch, index: Any, times: Any, offsets: Any,
                   ctx: Context) -> Iterator[Said]:
        axis, view = self._axis, ctx.store(partition)
        memory = read(view, MEMORY)
        before = int(times[0]) if memory is None else memory["highest"]
        highest = np.maximum(np.maximum.accumulate(times), before)
        k = (times - axis.shift) // axis.size
        on_time = k >= (highest - axis.late - axis.shift) // axis.size
        ctx.count("monitor", "late", len(k) - int(np.count_nonzero(on_time)))
        keys, values = [], []
        for window in np.unique(k[on_time]).tolist():
            mine = on_time & (k == window)
            part = rows.take(pa.array(index[mine]))
            part = part.append_column(OFFSET, pa.array(offsets[mine]))
            keys.append(_key(window) + int(offsets[mine][0]).to_bytes(8, "big"))
            values.append(_to_bytes(part))
        view.put(keys, values)
        now = int(highest[-1])
        write(view, MEMORY, {"highest": now})
        open_from = axis.open_from(now)
        closed: dict[int, list[tuple[bytes, bytes]]] = {}
        for key, value in view.scan(ROWS, end=_key(open_from)[1:]):
            closed.setdefault(_window(key), []).append((key, value))
        for window, chunks in sorted(closed.items()):
            view.delete([key for key, _ in chunks])
            held = pa.Table.from_batches([_from_bytes(value) for _, value in chunks])
            yield from self._judge(partition, window, held.combine_chunks().to_batches()[0], ctx)

    def _judge(self, partition: Partition, window: int, rows: pa.RecordBatch, ctx: Context) -> Iterator[Said]:
        """The verdicts on one closed window."""
        config: MonitorConfig = self.config
        offsets = rows.column(OFFSET).to_numpy()
        span = Span(*partition, int(offsets.min()), int(offsets.max()))
        version = self._version(rows) if config.drift or config.score or config.experiment else None
        y = _numbers(self._label.evaluate(rows)) if self._label is not None else np.full(rows.num_rows, np.nan)
        judged: list[tuple[str, tuple[bool, dict[str, float], Sequence[str]]]] = []
        if config.quality:
            judged.append(("quality", self._quality(config.quality, rows)))
        if config.drift:
            judged.append(("drift", self._drift(config.drift, rows, version, ctx)))
        if config.performance:
            about = "performance" if self._label is not None else "estimate"
            judged.append((about, self._performance(config.performance, rows, y, version, partition, ctx)))
        axis = self._axis
        start, end, known = map(_utc, (axis.start(window), axis.end(window), axis.end(window) + axis.late))
        whose = dict.fromkeys((about for about, _ in judged), version)
        if config.experiment and (decided := self._experiment(config.experiment, rows, partition, ctx)):
            whose["experiment"], told = decided
            judged.append(("experiment", told))
        for about, (ok, found, reasons) in judged:
            ctx.count("verdict", f"{about} {'ok' if ok else 'not ok'}", 1)
            verdict = Verdict(
                id=digest(ctx.flow, ctx.step, about, *partition, window), at=known, about=about, flow=ctx.flow,
                step=ctx.step, owner=ctx.owner, ok=ok, model=config.model, version=whose[about], topic=span.topic,
                partition=span.partition, window=window, offset_first=span.offset_first, offset_last=span.offset_last,
                window_start=start, window_end=end, rows=rows.num_rows,
                labels=int(np.count_nonzero(~np.isnan(y))), reasons=list(reasons),
                measures={name: float(value) for name, value in found.items() if np.isfinite(value)})
            yield Said(verdict, verdict.key(), span)

    def _experiment(self, config: ExperimentConfig, rows: pa.RecordBatch, partition: Partition,
                    ctx: Context) -> tuple[str, tuple[bool, dict[str, float], list[str]]] | None:
        """(the challenger's version, verdict) once it is sure which is better, and once when the arms' ratio is not
        what it should be. Rows count from a challenger's first to its last."""
        assert self._value is not None
        arms = rows.column(config.arm)
        theirs = np.flatnonzero(pc.fill_null(pc.equal(arms, "challenger"), False).to_numpy(zero_copy_only=False))
        if not len(theirs):
            return None
        version = str(rows.column(self.config.version)[int(theirs[-1])].as_py())
        view, place = ctx.store(partition), f"experiment {version}"
        held = read(view, place) or {"counts": {}, "said": False}
        if held["said"]:
            return None
        values, first = _numbers(self._value.evaluate(rows)), 0 if held["counts"] else int(theirs[0])
        within = np.arange(rows.num_rows)
        for arm in abtest.ARMS:
            mine = pc.fill_null(pc.equal(arms, arm), False).to_numpy(zero_copy_only=False)
            mine &= (within >= first) & (within <= theirs[-1])
            held["counts"] = abtest.update(held["counts"], abtest.arm_counts(arm, values[mine]))
        shares = None if config.share is None else {"champion": 1 - config.share, "challenger": config.share}
        found = abtest.result(held["counts"], config.alpha, better=config.better, shares=shares)
        held["said"] = bool(found["decided"] or found["void"])
        write(view, place, held)
        if not held["said"]:
            return None
        numbers = {name: found[name] for name in ("effect", "ci_low", "ci_high", "p_always_valid")
                   if found[name] is not None} | {f"n.{arm}": float(n) for arm, n in found["n"].items()}
        if found["void"]:
            return version, (False, numbers, [f"void: {found['void']}"])
        reason = (f"{found['decided']} is better: {config.value} differs by {found['effect']:+.5g} (from "
                  f"{found['ci_low']:+.5g} to {found['ci_high']:+.5g}, {config.better} is better)")
        return version, (found["decided"] == "challenger", numbers, [reason])

    def _version(self, rows: pa.RecordBatch) -> str | None:
        """The version that predicted last."""
        versions = rows.column(self.config.version).drop_null()
        return None if not len(versions) else str(versions[-1].as_py())

    def _quality(self, quality: QualityConfig, rows: pa.RecordBatch) -> tuple[bool, dict[str, float], list[str]]:
        assert self._bad is not None
        n, bad = rows.num_rows, int(pc.sum(pc.cast(self._bad.evaluate(rows), pa.int64())).as_py() or 0)
        share, reasons = bad / n, []
        if share > quality.share_max:
            reasons.append(f"{bad} of {n} rows are bad ({share:.1%}); {quality.share_max:.1%} are allowed")
        if n < quality.rows_min:
            reasons.append(f"{n} rows, and {quality.rows_min} are expected at least")
        return not reasons, {"bad": bad, "bad_share": share}, reasons

    def _drift(self, spec: DriftSpec, rows: pa.RecordBatch, version: str | None,
               ctx: Context) -> tuple[bool, dict[str, float], list[str]]:
        held = self._reference(version, ctx).get("drift")
        if not held:
            return True, {}, ["there is no version whose training data these could be held against"]
        by = {name: bounds for name, bounds in held.items() if name in rows.schema.names}
        return drift.judge(spec, by, drift.count(by, rows))

    def _performance(self, spec: PerformanceSpec, rows: pa.RecordBatch, y: Any, version: str | None,
                     partition: Partition, ctx: Context) -> tuple[bool, dict[str, float], list[str]]:
        """Of the rows that the window's last version predicted; `labels` and `positives` are of all."""
        config: MonitorConfig = self.config
        known = ~np.isnan(y)
        counts = {"labels": float(known.sum()), "positives": float(np.nansum(y))}
        if version is None:
            return True, counts, ["no version has predicted"]
        reference = self._reference(version, ctx)
        scores = _numbers(rows.column(config.score))
        mine = pc.fill_null(pc.equal(rows.column(config.version), version), False).to_numpy(zero_copy_only=False)
        mine = mine & ~np.isnan(scores)
        if self._label is None:
            found = measures.estimated(scores[mine], reference.get("calibration"))
            return True, {**found, "scored": float(mine.sum())}, ["as the calibration makes expect, without labels"]
        mine &= known
        ok, found, reasons = measures.performance(spec, y[mine], scores[mine],
                                                  (reference.get("baseline") or {}).get(spec.measure))
        found |= {**counts, "scored": float(mine.sum())}
        if config.detect and mine.any():
            view, place = ctx.store(partition), f"{config.detect} {version}"
            seen = watch(config.detect, measures.row_log_loss(y[mine], scores[mine]).tolist(), read(view, place))
            write(view, place, seen.state)
            found[f"{config.detect}_changes"] = float(len(seen.changes))
        return ok, found, reasons

    def _reference(self, version: str | None, ctx: Context) -> Mapping[str, Any]:
        """What was logged of the data that a version was trained on. Raises Retriable."""
        from headrace.loop.models import NoSuchModel

        if version is None or ctx.settings is None:
            return {}
        if version not in self._references:
            try:
                self._references[version] = self._store().load(self.config.model, version).reference
            except NoSuchModel:
                return {}
        return self._references[version]


def _key(window: int) -> bytes:
    return ROWS + (window + (1 << 62)).to_bytes(8, "big")  # windows before 1970 come first


def _window(key: bytes) -> int:
    return int.from_bytes(key[1:9], "big") - (1 << 62)


def _to_bytes(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_batch(rows)
    raw: bytes = sink.getvalue().to_pybytes()
    return raw


def _from_bytes(raw: bytes) -> pa.RecordBatch:
    return pa.ipc.open_stream(raw).read_next_batch()


def _numbers(column: Any) -> Any:
    """As float64, NaN for null."""
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    return pc.cast(column, pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
