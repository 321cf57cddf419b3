"""Tagged fields followed through steps. Pure; in doubt a column is said to hold more than it does, never less."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from headrace.codec import AvroSchema
from headrace.processor import Origin, Processor

CLEAR, DERIVED, MAY = "in clear", "derived from it", "may contain it"
"""How a field stands in a column that no step protected; protected it stands there as the step says: tokenise, …"""
OPEN = (CLEAR, DERIVED)
_COLUMN = re.compile(r"[^.\[{]+")


@dataclass(frozen=True, slots=True, order=True)
class Tagged:
    """A field of a source's records that its schema tags: `path` is customer.email, contacts[].phone."""

    source: str
    topic: str
    path: str
    tag: str


@dataclass(frozen=True, slots=True, order=True)
class Trace:
    """A tagged field in the rows of an output: `at` is its path there, `how` how it stands there."""

    field: Tagged
    at: str
    how: str = CLEAR


Traces = tuple[Trace, ...]


def of_source(source: str, topic: str, schema: AvroSchema) -> Traces:
    """The tagged fields of a source's records."""
    return tuple(Trace(Tagged(source, topic, path, tag), path) for path, tag in schema.pii.items())


def tags(given: Iterable[Traces]) -> dict[str, str]:
    """Path → tag of what is in clear."""
    return {trace.at: trace.field.tag for traces in given for trace in traces if trace.how == CLEAR}


def column(path: str) -> str:
    """The column that a path is in."""
    found = _COLUMN.match(path)
    return found[0] if found else path


def after(processor: Processor, shapes: Sequence[pa.Schema], given: Sequence[Traces],
          outputs: Mapping[str, pa.Schema]) -> dict[str, Traces]:
    """Relationship → the traces in its rows, of a step that reads rows of these shapes with these traces."""
    if not any(given):
        return dict.fromkeys(outputs, ())
    protected = processor.protects()
    out = {}
    for relationship, shape in outputs.items():
        said = processor.origins(relationship)
        made = _guessed(processor, shape, shapes) if said is None else said.items()
        traces = [trace for name, origin in made if name in shape.names for trace in _into(name, origin, given)]
        if relationship == processor.main:
            traces = [replace(trace, how=_how(trace, protected)) for trace in traces]
        out[relationship] = tuple(dict.fromkeys(traces))
    return out


def _guessed(processor: Processor, shape: pa.Schema,
             shapes: Sequence[pa.Schema]) -> Iterator[tuple[str, Origin | None]]:
    """The columns of an output of which nothing is said; None is made of whatever came in."""
    same = [at for at, one in enumerate(shapes) if one.equals(shape)]
    for name in shape.names:
        here = same or ([] if processor.own_rows else [at for at, one in enumerate(shapes) if name in one.names])
        yield from ((name, Origin((name,), copy=True, input=at)) for at in here)
        if not here:
            yield name, None


def _into(name: str, origin: Origin | None, given: Sequence[Traces]) -> Iterator[Trace]:
    if origin is None:
        yield from (Trace(t.field, name, MAY if t.how in OPEN else t.how) for traces in given for t in traces)
        return
    for trace in given[origin.input]:
        came = column(trace.at)
        if came in origin.columns and origin.copy:
            yield replace(trace, at=name + trace.at[len(came):])
        elif came in origin.columns:
            yield replace(trace, at=name, how=DERIVED if trace.how == CLEAR else trace.how)


def _how(trace: Trace, protected: Mapping[str, str]) -> str:
    return next((how for path, how in protected.items()
                 if trace.at == path or trace.at.startswith(tuple(path + mark for mark in ".[{"))), trace.how)
