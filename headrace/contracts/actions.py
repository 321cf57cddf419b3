"""What is done with the rows that break an expectation: by its severity, unless a flow says otherwise.

    quarantine   the row is rejected, with the reason
    tag          the row goes on, and says the expectation's id
    count        the row goes on

Every row that breaks an expectation is counted, whatever else is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from headrace.contracts.suite import Suite
from headrace.errors import SuiteError
from headrace.marked import nearest

Action = Literal["quarantine", "tag", "count"]
BY_SEVERITY: Mapping[str, Action] = {"critical": "quarantine", "warning": "tag", "info": "count"}
WORDS: Mapping[Action, str] = {"quarantine": "held back", "tag": "tagged", "count": "counted"}
"""What happens to a record, for sentences."""


def actions_of(suite: Suite, written: Mapping[str, Action]) -> dict[str, Action]:
    """Expectation id → action, every id of the suite. `written` has severities and ids; an id comes before a severity.
    Raises SuiteError for a key that is neither, and for an id that a list of tags cannot hold."""
    ids = [e.id for e in suite.expectations]
    for key in written:
        if key not in BY_SEVERITY and key not in ids:
            raise SuiteError(f"actions: “{key}” is neither a severity nor an expectation of {suite.file}"
                             f"{nearest(key, [*BY_SEVERITY, *ids])}", hint="name a severity or an expectation's id")
    by_severity = {**BY_SEVERITY, **written}
    actions = {e.id: written.get(e.id, by_severity[e.severity]) for e in suite.expectations}
    for e in suite.expectations:
        if actions[e.id] == "tag" and "," in e.id:
            e.wrong("its id has a comma, and tags are ids joined by commas",
                    f"give it another id, or only count it: actions: {{\"{e.id}\": count}}")
    return actions
