"""A model card made of facts. Nothing is written that was not given; what was not given is listed as not known.

    facts = Facts(model="flight-delay", version="7", metrics={"auc": 0.731}, owner="flight-ops")
    card(facts)          # a dict, JSON: for MLflow, for the audit log
    markdown(facts)      # the same for people
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace.batch import Span

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Model": {"model": "Name", "version": "Version", "owner": "Owner", "purpose": "Purpose", "spec": "Specification"},
    "Origin": {"trigger": "Trigger", "reason": "Why it was trained", "run": "Run", "trained_at": "Trained at"},
    "Data": {"ranges": "Offsets read", "rows": "Rows", "rows_of_class": "Rows by class",
             "event_time_first": "Event time from", "event_time_last": "Event time to",
             "digest": "Digest of the data", "schemas": "Schema ids"},
    "Quality": {"metrics": "Metrics on the holdout", "slices": "By slice"},
    "Gate": {"decision": "Decision", "reasons": "Reasons", "baseline": "Compared with"},
    "Code": {"flow": "Flow", "git_commit": "Git commit", "lock_digest": "Digest of the lock file",
             "image_digest": "Digest of the image", "versions": "Versions"},
    "Cost": {"cpu_s": "CPU seconds", "memory_peak_bytes": "Peak memory, bytes"},
}
"""Section → fact → its title, in the order of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one version of a model. None: not known. Empty (no slices, no reasons): known to be none."""

    model: str | None = None
    version: str | None = None
    owner: str | None = None
    purpose: str | None = None
    spec: Mapping[str, Any] | None = None
    trigger: str | None = None
    reason: str | None = None
    run: str | None = None
    trained_at: datetime | None = None
    ranges: Sequence[Span] | None = None
    rows: int | None = None
    rows_of_class: Mapping[str, int] | None = None
    event_time_first: datetime | None = None
    event_time_last: datetime | None = None
    digest: str | None = None
    schemas: Mapping[str, int] | None = None
    metrics: Mapping[str, float] | None = None
    slices: Sequence[Mapping[str, Any]] | None = None
    decision: str | None = None
    reasons: Sequence[str] | None = None
    baseline: str | None = None
    flow: str | None = None
    git_commit: str | None = None
    lock_digest: str | None = None
    image_digest: str | None = None
    versions: Mapping[str, str] | None = None
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None


def card(facts: Facts) -> dict[str, Any]:
    """{section: {fact: value}, …, "not_known": [facts]}: JSON values, names as in Facts."""
    out: dict[str, Any] = {}
    missing: list[str] = []
    for section, titles in SECTIONS.items():
        for name in titles:
            value = getattr(facts, name)
            if value is None:
                missing.append(name)
            else:
                out.setdefault(section.lower(), {})[name] = _plain(value)
    return {**out, "not_known": missing}


def markdown(facts: Facts) -> str:
    """The card as a Markdown page, in the order of SECTIONS, what is not known at its end."""
    told = card(facts)
    lines = [f"# Model card: {_text(facts.model or 'a model without a name')}"
             + (f", version {_text(facts.version)}" if facts.version is not None else "")]
    for section, titles in SECTIONS.items():
        held = told.get(section.lower(), {})
        lines += ["", f"## {section}", ""] if held else []
        lines += [line for name, value in held.items() for line in _lines(titles[name], value)]
    missing = [title for titles in SECTIONS.values() for name, title in titles.items() if name in told["not_known"]]
    lines += ["", "## Not known", "", *(f"- {title}" for title in missing)] if missing else []
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    """As JSON: spans as their text, times in ISO 8601, UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Span):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _lines(title: str, value: Any) -> list[str]:
    """A fact: on its line, as a list, or, where it has rows of the same columns, as a table."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        columns = list(dict.fromkeys(name for row in value for name in row))
        rule = "|".join("---" for _ in columns)
        return ["", f"{title}:", "", f"| {' | '.join(map(_text, columns))} |", f"|{rule}|",
                *(f"| {' | '.join(_text(row.get(name, '')) for name in columns)} |" for row in value), ""]
    if isinstance(value, dict | list):
        told = [f"{_text(k)}: {_text(v)}" for k, v in value.items()] if isinstance(value, dict) else map(_text, value)
        return [f"- **{title}**:" if value else f"- **{title}**: none", *(f"  - {line}" for line in told)]
    return [f"- **{title}**: {_text(value)}"]


def _text(value: Any) -> str:
    """On one line, with nothing in it that Markdown would read as its own."""
    shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else (
        f"{value:.6g}" if isinstance(value, float) else str(value))
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(shown.split()))
