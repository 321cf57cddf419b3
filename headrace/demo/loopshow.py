"""The loop's part of the live picture: how right the model is, week by week, and what became of each retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.demo.told import Retraining, Told

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN = 10
BAR_CELLS = 22
LOW, HIGH = 0.5, 0.8
"""What a bar's ends stand for: 0.5 is guessing."""
TONES = {"blessed": "green", "rejected": "yellow", "failed": "bold red"}


def weeks(told: Told, *, every: bool = False) -> RenderableType:
    """AUC by week with the version that predicted; red where the monitor called it bad. The last ones, or the whole
    year at equal distances."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), show_header=False)
    seen = [week for week in told.weeks.values() if week.auc is not None]
    shown = seen[::-max(1, -(-len(seen) // SHOWN))][::-1] if every else seen[-SHOWN:]
    for week in shown:
        cells = round((week.auc or 0.0) * BAR_CELLS / (HIGH - LOW) - LOW * BAR_CELLS / (HIGH - LOW))
        tone = "red" if "performance" in week.bad else "cyan"
        table.add_row(f"{week.start:%d %b}", f"v{week.version}", f"{week.auc:.3f}",
                      Text("█" * max(1, min(cells, BAR_CELLS)), style=tone))
    if not seen:
        table.add_row("", "", "no model yet", "")
    return table


def retrainings(told: Told) -> RenderableType:
    """Who is in charge, and every retraining."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_row(Text("in charge", style="dim"), Text(f"version {told.in_charge}" if told.in_charge else "nobody yet",
                                                       style="bold"), "")
    for each in list(told.retrainings.values())[1 - SHOWN:]:
        table.add_row(f"{each.request.at:%d %b}", each.request.measure,
                      Text(_state(each), style=TONES.get(each.state, "")))
    return table


def _state(each: Retraining) -> str:
    match each.state:
        case "asked":
            return "training …"
        case "trained":
            return "trained; the gate judges …"
        case "blessed" | "rejected":
            return f"{each.state} version {each.answer.version if each.answer else '?'}"
    return each.state
