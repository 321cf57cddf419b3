"""What is seen meanwhile: one live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.demo.board import ALARMING, Board, Sample, moving, per_slice
from headrace.demo.loopshow import retrainings, weeks

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH_S = 0.15
LINE_EVERY_S = 2.0
SPARKS = " ▁▂▃▄▅▆▇█"
SPARK_CELLS, BAR_CELLS, DAYS_SHOWN, SAID_SHOWN, REASONS_SHOWN = 60, 24, 10, 9, 8
WIDTH = 118
LIVE = ("story", "loop")
"""Acts in which time passes: all of it is drawn."""
TONES = {"ALERT": "bold red", "kill -9": "bold red", "TRIGGER": "bold yellow", "REJECTED": "yellow",
         "FAILED": "bold red", "BLESSED": "green", "SWITCH": "bold green"}
"""What a line begins with → its style."""


@contextmanager
def live(board: Board) -> Iterator[Callable[[], None]]:
    """`show()`, which brings the view up to date when it is time to. Prints to stderr."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(board)
        yield lines.show
        lines.rest()
        return
    with Live(picture(board), console=console, auto_refresh=False, vertical_overflow="crop") as drawn:
        shown_at = 0.0

        def show() -> None:
            nonlocal shown_at
            if time.monotonic() - shown_at >= REFRESH_S:
                shown_at = time.monotonic()
                drawn.update(picture(board), refresh=True)

        yield show
        drawn.update(picture(board), refresh=True)


class _Lines:
    """The view without a terminal: what is said, and every two seconds how far the flows are."""

    def __init__(self, board: Board) -> None:
        self.board, self.printed, self.status_s = board, 0, 0.0

    def show(self) -> None:
        self.rest()
        now_s = self.board.now_s()
        if self.board.latest and now_s - self.status_s >= LINE_EVERY_S:
            self.status_s = now_s
            print(f"{now_s:6.1f} s    " + " · ".join(
                f"{flow} {s.done:,} done, {self.board.rate(flow):,.0f} records/s, lag {s.lag:,}"
                for flow, s in self.board.latest.items()), file=sys.stderr, flush=True)

    def rest(self) -> None:
        for at_s, text in self.board.said[self.printed:]:
            print(f"{at_s:6.1f} s  {text}", file=sys.stderr, flush=True)
        self.printed = len(self.board.said)


def picture(board: Board) -> RenderableType:
    """The whole board as one picture, 118 cells wide."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    acts = Text("  ")
    for act in board.acts:
        acts.append(f" {act} ", style="bold black on cyan" if act == board.act and board.ended_s is None
                    else "cyan" if act in board.act_began else "dim")
        acts.append("  ")
    acts.append(f"{board.now_s():5.0f} s", style="bold")
    acts.append(f"    {board.flights:,} real flights · Kafka · Avro · exactly once", style="dim")
    half = (WIDTH - 2) // 2

    def pair(left: RenderableType, title: str, right: RenderableType, other: str) -> RenderableType:
        return Columns([Panel(left, title=title, width=half, height=12),
                        Panel(right, title=other, width=half, height=12)], padding=(0, 1))

    over = board.ended_s is not None
    below = []
    if over or board.act != "loop":
        below.append(pair(_held(board), "held back, by expectation", _days(board), "cancelled, day by day"))
    if board.act == "loop":
        below.append(pair(weeks(board.loop, every=over), "how right the model is, by week (AUC)",
                          retrainings(board.loop), "retrained, judged, switched"))
    said = Text("\n").join(Text.assemble((f"{at_s:6.1f} s  ", "dim"), (text, _tone(text)))
                           for at_s, text in list(board.said)[-SAID_SHOWN:])
    said.no_wrap, said.overflow = True, "ellipsis"
    return Group(Panel(acts, title="headrace demo", width=WIDTH), Panel(_flows(board), width=WIDTH), *below,
                 Panel(said, title="what happened", width=WIDTH, height=SAID_SHOWN + 2))


def _tone(text: str) -> str:
    return next((tone for start, tone in TONES.items() if text.startswith(start)), "green" if "lost 0" in text else "")


def _flows(board: Board) -> RenderableType:
    """A line for each flow of each act: how far, how fast, how it went over time; kills in red."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), expand=True, header_style="dim")
    for name in ("act", "flow", "records", "records/s", "lag"):
        table.add_column(name, justify="right" if name in ("records", "records/s", "lag") else "left")
    table.add_column("committed over time (✗ is a kill -9)", no_wrap=True)
    lanes = list(dict.fromkeys((s.act, s.flow) for s in board.samples))
    for act, flow in lanes:
        series = board.series(act, flow)
        live_now = act == board.act and board.ended_s is None
        rate = board.rate(flow) if live_now else _mean_rate(series)
        kills = [k.at_s for k in board.kills] if act == "kill" else []
        drawn = _spark(series if act in LIVE else moving(series), kills)
        table.add_row(Text(act, style="cyan" if live_now else ""), flow, f"{series[-1].done:,}", f"{rate:,.0f}",
                      Text(f"{series[-1].lag:,}", style="yellow" if series[-1].lag else "green"), drawn)
    if not lanes:
        table.add_row("", "loading …", "", "", "", "")
    return table


def _mean_rate(series: list[Sample]) -> float:
    """Over the time in which something moved."""
    moving = [s for s in series if s.done > series[0].done]
    if not moving:
        return 0.0
    began = max(s.at_s for s in series if s.at_s < moving[0].at_s)
    ended = next(s.at_s for s in series if s.done == series[-1].done)
    return (series[-1].done - series[0].done) / max(ended - began, 1e-3)


def _spark(series: list[Sample], kills: list[float]) -> RenderableType:
    """The rate over time, and where the kills were."""
    from rich.text import Text

    rates = per_slice(series, SPARK_CELLS)
    top = max((rate for _, rate in rates), default=0.0) or 1.0
    drawn = Text()
    for before, (at_s, rate) in zip([(0.0, 0.0), *rates], rates, strict=False):
        hit = any(before[0] < kill <= at_s for kill in kills)
        level = min(max(math.ceil(rate / top * (len(SPARKS) - 1) - 1e-6), 0), len(SPARKS) - 1)
        drawn.append(*(("✗", "bold red") if hit else (SPARKS[level], "cyan")))
    return drawn


def _held(board: Board) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    reasons = sorted(((n, flow, reason) for flow, counts in board.held.items() for reason, n in counts.items()),
                     reverse=True)
    most = reasons[0][0] if reasons else 1
    for n, flow, reason in reasons[:REASONS_SHOWN]:
        table.add_row(f"{flow[:3]}  {reason}", f"{n:,}", "━" * max(1, round(n / most * 18)))
    if rest := reasons[REASONS_SHOWN:]:
        table.add_row(f"… and {len(rest)} more", f"{sum(n for n, *_ in rest):,}", "")
    return table


def _days(board: Board) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), show_header=False)
    fired = {alert.window_start.date() for alert in board.alerts if alert.window_start}
    last = len(board.days)
    if board.ended_s is not None and fired:  # at the end the storm is shown, not the quiet after it
        last = min(last, next(n for n, day in enumerate(board.days) if day.date in fired) + DAYS_SHOWN // 2 + 1)
    for day in board.days[max(0, last - DAYS_SHOWN):last]:
        bar = Text("█" * round(day.share * BAR_CELLS / 0.6), style="red" if day.share >= ALARMING else "cyan")
        if day.date in fired:
            bar.append(" ALERT", style="bold red")
        table.add_row(f"{day.date:%a %d %b}", f"{day.share:.0%}", bar)
    return table


def save_svg(board: Board, to: Path) -> None:
    """The picture as an SVG that needs nothing from elsewhere."""
    import io
    import re

    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console

    console: Console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True,
                               color_system="truecolor")
    console.print(picture(board))
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(to), title="headrace demo", code_format=without_fonts)
