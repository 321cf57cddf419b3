"""Schema drift as values: a change of a writer's schema, its effects, and all of them together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headrace.schemadrift.diff import Change

SEVERITIES = ("info", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect of one change. `kind` is

        none         the flow does not notice
        read         values are read that were not, or that are written in another form
        promoted     read as the reader's wider type
        default      read with the reader's default
        nulls        nulls come where there were none
        quarantine   records cannot be read, and are held back
        expectation  what an expectation makes of it; `name` is its id
        use          a step or a sink uses the column; `name` says which

    `severity`: critical where records are held back; warning where values may mean something else or break an
    expectation; info.
    """

    kind: str
    text: str
    severity: str = "info"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """A change and its effects."""

    change: Change
    effects: tuple[Effect, ...]

    @property
    def text(self) -> str:
        """A line for people."""
        return self.change.text + (f": {'; '.join(e.text for e in self.effects)}" if self.effects else "")


@dataclass(frozen=True, slots=True)
class Drift:
    """What changed from one writer's schema to another, and what of it. `problems`: why none of the new one's records
    can be read; empty when they can."""

    old: str
    new: str
    problems: tuple[str, ...] = ()
    changes: tuple[Changed, ...] = ()

    @property
    def severity(self) -> str:
        """The worst there is."""
        found = ["critical"] if self.problems else [e.severity for c in self.changes for e in c.effects]
        return max(found, key=SEVERITIES.index, default="info")

    @property
    def texts(self) -> list[str]:
        """Lines for people, the worst first."""
        head = [f"none of its records can be read: {p}" for p in self.problems]
        return [*head, *(c.text for c in self.changes)] or ["only texts or orders differ: nothing changes"]

    def as_json(self) -> dict[str, Any]:
        """{old, new, severity, problems, changes: [{path, kind, old, new, come, effects: [{kind, text, …}]}]}."""
        return {"old": self.old, "new": self.new, "severity": self.severity, "problems": list(self.problems),
                "changes": [{**c.change.as_json(), "effects": [asdict(e) for e in c.effects]} for c in self.changes]}
