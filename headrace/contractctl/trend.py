"""What an expectation found, window after window, as a small picture with its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from headrace.contractctl.html import text
from headrace.contracts import Expectation
from headrace.contracts.kinds import AGGREGATE, BATCH, ROWS

WIDTH, HEIGHT, EDGE = 160, 36, 4
"""In pixels; the edge is kept free for dots."""
STYLE = """
body { max-width: 1280px; } td:nth-child(3) { min-width: 10rem; } td small { overflow-wrap: anywhere; }
svg { display: block; overflow: visible; } .curve { fill: none; stroke: var(--soft); stroke-width: 1.5; }
.band { fill: var(--good); opacity: .13; } .dot { fill: var(--ink); } .off { fill: var(--bad); }
"""
Range = tuple[float | None, float | None]
"""The least and the greatest value that are in order; None is no bound."""


@dataclass(frozen=True, slots=True)
class Point:
    """One window: what was measured, None where nothing was, and whether it was in order."""

    value: float | None
    ok: bool


@dataclass(frozen=True, slots=True)
class Trend:
    """Of one measure, oldest window first."""

    points: Sequence[Point]
    held_to: Range = (None, None)
    unit: str = ""

    def html(self) -> str:
        """The picture, and least, greatest and last value; the range as text. Nothing without a value."""
        points = [replace(p, value=None) if p.value is not None and not math.isfinite(p.value) else p
                  for p in self.points]
        values = [point.value for point in points if point.value is not None]
        if not values:
            return ""
        last = points[-1].value
        told = (f"min {self._told(min(values))} · max {self._told(max(values))} · last "
                f"{'–' if last is None else self._told(last)}")
        wanted = self._wanted()
        return (f"{_svg(points, min(values), max(values), self.held_to, told)}<small>{text(told)}</small>"
                + (f"<small>held to {text(wanted)}</small>" if wanted else ""))

    def _told(self, value: float) -> str:
        return number(value) + self.unit

    def _wanted(self) -> str:
        low, high = self.held_to
        if low is not None and high is not None:
            return self._told(low) if low == high else f"{number(low)} to {self._told(high)}"
        if high is not None:
            return f"at most {self._told(high)}"
        return "" if low is None else f"at least {self._told(low)}"


def of(e: Expectation, points: Sequence[Point]) -> Trend:
    """Of an expectation: in percent of the rows it judges, or of what it observes."""
    counts = e.type in ROWS or (e.type in BATCH and e.type not in AGGREGATE)
    return Trend(points, held_to(e), " %" if counts else _UNITS.get(e.type, ""))


def held_to(e: Expectation) -> Range:
    """The range of its measure: of unexpected rows as `mostly` has it; else between its bounds, where these are
    numbers."""
    if e.type in ROWS or (e.type in BATCH and e.type not in AGGREGATE):
        return 0.0, round((1 - e.mostly) * 100, 9)
    given = [e.kwargs.get(name, e.kwargs.get("value") if e.type.endswith("_to_equal") else None)
             for name in ("min_value", "max_value")]
    low, high = (float(v) if isinstance(v, int | float) and not isinstance(v, bool) else None for v in given)
    return low, high


_UNITS = {"freshness": " ms"}


def number(value: float) -> str:
    """To four digits; whole numbers in full."""
    return f"{value:,.0f}" if abs(value) < 1e15 and (value == round(value) or abs(value) >= 1e4) else f"{value:,.4g}"


def _svg(points: Sequence[Point], least: float, greatest: float, held: Range, label: str) -> str:
    """A line through the values, broken where there is none; red dots where a window was not in order. The range shows
    as a band, as far as it is in sight."""
    spread = (greatest - least) or abs(greatest) or 1.0
    bottom, top = least - spread / 8, greatest + spread / 8
    step = (WIDTH - 2 * EDGE) / max(1, len(points) - 1)

    def y(value: float) -> float:
        return round(HEIGHT - EDGE - (min(max(value, bottom), top) - bottom) / (top - bottom) * (HEIGHT - 2 * EDGE), 1)

    places = [(round(EDGE + at * step, 1), None if p.value is None else y(p.value)) for at, p in enumerate(points)]
    dots = "".join(f'<circle class="off" cx="{x}" cy="{HEIGHT if at is None else at}" r="2">'
                   "</circle>" for p, (x, at) in zip(points, places, strict=True) if not p.ok)
    x, at = places[-1]
    if points[-1].ok and at is not None:
        dots += f'<circle class="dot" cx="{x}" cy="{at}" r="2"></circle>'
    lines = "".join(f'<polyline class="curve" points="{line}"></polyline>' for line in _lines(places))
    return (f'<svg role="img" aria-label="{text(label)}" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}">{_band(held, bottom, top, y)}{lines}{dots}</svg>')


def _band(held: Range, bottom: float, top: float, y: Callable[[float], float]) -> str:
    low, high = held
    if (low is None and high is None) or (low is not None and low > top) or (high is not None and high < bottom):
        return ""
    from_, to = y(top if high is None else high), y(bottom if low is None else low)
    return f'<rect class="band" x="0" y="{from_}" width="{WIDTH}" height="{max(1.0, round(to - from_, 1))}"></rect>'


def _lines(places: Sequence[tuple[float, float | None]]) -> list[str]:
    lines: list[list[str]] = [[]]
    for x, y in places:
        if y is None:
            lines.append([])
        else:
            lines[-1].append(f"{x},{y}")
    return [" ".join(line) for line in lines if len(line) > 1]
