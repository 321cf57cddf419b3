"""Verdicts as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace.contractctl.html import as_json, code, document, table, text
from headrace.contractctl.judged import Example, Judged, judged, many
from headrace.contracts import Expectation
from headrace.contracts.suite import COLUMN_KEYS
from headrace.contracts.verdict import Verdict
from headrace.ingest import Bad

VALUES_MAX, ROWS_MAX = 20, 10
"""Of an expectation, the values shown; of a value, the rows."""
UNREAD_MAX = 100
KWARGS_CHARS = 300
DETAILS_CHARS = 5_000
MILD = "An expectation of severity warning or info is shown, and makes no suite fail."


@dataclass(frozen=True, slots=True)
class Facts:
    """What a page says of what was judged."""

    suite: str
    subject: str
    """A file, or a window of a topic."""
    rows: int
    holds: bool
    why: str
    unit: str = "row"
    """What the numbers of the failures count: line, record or row."""
    at: str = ""
    """When it was judged."""


def render(facts: Facts, verdicts: Sequence[tuple[Expectation, Verdict]], failures: pa.Table,
           unread: Sequence[Bad] = (), unread_count: int = 0) -> str:
    """The page. `failures` as a Report has them; their `row` is shown as it is."""
    all_ = judged(verdicts, failures, values_max=VALUES_MAX, rows_max=ROWS_MAX)
    word, tone = ("holds", "good") if facts.holds else ("fails", "bad")
    title = f"{facts.suite} {word} on {facts.subject}"
    said = f"{many(facts.rows, facts.unit)} judged" + (f" on {facts.at}" if facts.at else "")
    body = "".join((_unread(facts, unread, unread_count) if unread_count else "", summary(all_),
                    *(broken(j, facts.unit) for j in all_)))
    return document(title, f'<h1><span class="{tone}">{text(facts.suite)} {word}</span> on {text(facts.subject)}</h1>'
                    f'<p>{text(facts.why)}</p><p class="soft">{text(said)}. {MILD}</p>{body}')


def summary(all_: Sequence[Judged], beside: Mapping[str, str] | None = None) -> str:
    """The verdicts as a table; `beside` has the HTML of one more column, its trend, for ids of expectations."""
    more = beside or {}
    rows = (f"<tr><td>{code(j.expectation.id)}<small>{text(j.expectation.type)}</small>{_notes(j.expectation)}</td>"
            f"<td>{text(', '.join(j.expectation.columns))}</td><td>{_wanted(j.expectation)}</td>"
            f'<td>{text(j.expectation.severity)}</td><td class="{_tone(j)}">{j.word}</td><td>{text(j.found)}</td>'
            + (f"<td>{more.get(j.expectation.id, '')}</td></tr>" if beside is not None else "</tr>") for j in all_)
    names = ("expectation", "columns", "wanted", "severity", "verdict", "found", "trend")
    return (f"<h2>{many(len(all_), 'expectation')}</h2>"
            f"{table(names if beside is not None else names[:-1], rows)}")


def _tone(judged: Judged) -> str:
    return "good" if judged.verdict.success else "bad" if judged.expectation.severity == "critical" else "warn"


def _notes(e: Expectation) -> str:
    """What its author wrote of it."""
    notes = e.meta.get("notes")
    return f"<small>{text(notes)}</small>" if isinstance(notes, str) else ""


def _wanted(e: Expectation) -> str:
    """Its arguments, without the columns."""
    given = {k: v for k, v in e.kwargs.items() if k not in COLUMN_KEYS and v is not None}
    return "<br>".join(code(f"{k} = {v if isinstance(v, str) else as_json(v)}", KWARGS_CHARS) for k, v in given.items())


def broken(judged: Judged, unit: str = "row") -> str:
    """The values that break one expectation, and what else its verdict says; nothing where there is neither. `unit` is
    what the rows of an example are counted by."""
    e, result, details = judged.expectation, judged.verdict.result, _details(judged)
    if not judged.examples and not details:
        return ""
    heading = f'<h3>{code(e.id)} <span class="{_tone(judged)}">{judged.word}</span></h3><p>{text(judged.found)}</p>'
    if not judged.examples:
        return heading + details
    names = [", ".join(e.columns) or "value"]
    if any(example.rows for example in judged.examples):
        names += ["times", f"{unit}s"]
    elif known := sum(example.count or 0 for example in judged.examples):
        names.append("times" if known == result.get("unexpected_count") else f"times, of the first {known:,}")
    rows = table(names, (_example(example, len(names)) for example in judged.examples))
    more = f'<p class="soft">No more than {VALUES_MAX} values are shown.</p>'
    return heading + rows + more * (len(judged.examples) == VALUES_MAX) + details


def _example(example: Example, cells_max: int) -> str:
    rows = ", ".join(str(row) for row in example.rows)
    more = ", …" if example.count and example.count > len(example.rows) else ""
    count = "" if example.count is None else f"{example.count:,}"
    cells = (code(example.value), count, rows + more)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells[:cells_max])}</tr>"


def _details(judged: Judged) -> str:
    found = judged.verdict.result.get("details")
    if not found or judged.verdict.success:
        return ""
    lines = as_json(found, indent=2)[:DETAILS_CHARS].split("\n")
    return f"<pre>{chr(10).join(text(line) for line in lines)}</pre>"


def _unread(facts: Facts, unread: Sequence[Bad], count: int) -> str:
    rows = (f'<tr><td>{bad.at}</td><td>{text("; ".join(bad.reasons), 300)}</td>'
            f"<td>{code(bad.raw[:600].decode(errors='replace'), 160)}</td></tr>" for bad in unread[:UNREAD_MAX])
    shown = f"; the first {UNREAD_MAX} of them" if count > UNREAD_MAX else ""
    return (f'<h2 class="bad">{many(count, facts.unit)} that could not be read{shown}</h2>'
            f"{table((facts.unit, 'why', 'as it stands there'), rows)}")
