"""Which parts of a plan use a column of a source: asked of the parts themselves, by planning them without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from headrace.contracts import Expectation, Suite
from headrace.plan import ROWS, Edge, Plan, StepPlan
from headrace.rules import given


@dataclass(frozen=True, slots=True)
class Uses:
    """`used`: column → who uses it, of those that anyone does: “step <name> (<kind>)”, “topic <sink>”. `suite`: the
    expectations that judge one of the columns, whatever `validate` step they are of; None without any."""

    used: Mapping[str, tuple[str, ...]]
    suite: Suite | None


def uses(plan: Plan, source: str, columns: Iterable[str]) -> Uses:
    """Who uses these columns of a source. A step of a plan is not touched: each is built anew, a few ms a column and
    step. A column that a step uses and gives out under the same name is taken for the same."""
    used: dict[str, tuple[str, ...]] = {}
    judged: dict[tuple[str, str], Expectation] = {}
    files: list[Suite] = []
    shapes = {Edge(step.name, name): shape for step in plan.steps for name, shape in step.outputs.items()}
    for one in plan.sources:
        shapes |= {Edge(one.name, name): shape for name, shape in given(plan.spec, one.name, one.schema.arrow).items()}
    for column in columns:
        who: list[str] = []
        rows = {Edge(source, ROWS.relationship): less(shapes[Edge(source, ROWS.relationship)], column)}
        for step in plan.steps:  # `rows` has the edges on which the column is missed
            if not any(edge in rows for edge in step.inputs):
                continue
            suite: Suite | None = getattr(step.processor, "suite", None)
            outputs = None if suite else planned(plan, step, [rows.get(edge, shapes[edge]) for edge in step.inputs])
            if suite:
                mine = {(step.name, e.id): e for e in suite.expectations if column in e.columns}
                judged |= mine
                files += [suite] if mine else []
            elif outputs is None:
                who.append(f"step {step.name} ({step.kind})")
            for name, shape in (outputs or {n: less(s, column) for n, s in step.outputs.items()}).items():
                edge = Edge(step.name, name)
                if edge in shapes and column not in shape.names and column in shapes[edge].names:
                    rows[edge] = shape
        who += [f"topic {sink.name}" for sink in plan.sinks if sink.schema is not None
                and column in sink.rows.names and any(edge in rows for edge in sink.inputs)]
        if who:
            used[column] = tuple(who)
    return Uses(used, Suite(files[0].name, files[0].file, tuple(judged.values())) if files else None)


def less(shape: pa.Schema, column: str) -> pa.Schema:
    """A shape without a column."""
    at = shape.get_field_index(column)
    return shape if at < 0 else shape.remove(at)


def planned(plan: Plan, step: StepPlan, given: list[pa.Schema]) -> Mapping[str, pa.Schema] | None:
    """The outputs of a step for other inputs; None when it cannot do without what they lack."""
    made = type(step.processor)(step.processor.config, project=plan.project)
    made.tagged = step.processor.tagged
    try:
        return made.outputs_of(given)
    except Exception:  # a project's own processor may say it in a way of its own
        return None
