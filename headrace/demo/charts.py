"""A few charts as inline SVG, drawn by hand: they need no script, no font and nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 920, 280
LEFT, RIGHT, TOP, BOTTOM = 70, 18, 18, 40
BAR_HEIGHT, LABEL_WIDTH, STRIP = 24, 250, 28


@dataclass(frozen=True, slots=True)
class Line:
    """A curve; `tone` is its CSS class."""

    name: str
    tone: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment worth a word: a dashed vertical with its label."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time with a name, e.g. a version in charge; `tone` is its CSS class."""

    begin: float
    end: float
    name: str
    tone: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One value with its name; `tone` is its CSS class, `hint` what a pointer over it shows."""

    name: str
    value: float
    tone: str
    hint: str = ""


def nice_ticks(top: float, about: int = 5) -> list[float]:
    """Round numbers from 0 up to at least `top`, about so many: steps of 1, 2 or 5 times a power of ten."""
    if top <= 0:
        return [0.0, 1.0]
    raw = top / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return [n * step for n in range(math.ceil(top / step - 1e-9) + 1)]


def short(value: float) -> str:
    """250000 as 250 k."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def _svg(title: str, height: float, parts: Iterator[str]) -> str:
    return (f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
            f"{''.join(parts)}</svg>")


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}</text>'


def lines(title: str, curves: Sequence[Line], *, x_label: str, marks: Sequence[Mark] = ()) -> str:
    """Curves over time, from x = 0; the space below each is tinted."""
    x_top = max((x for c in curves for x, _ in c.points), default=1.0) or 1.0
    ticks = nice_ticks(max((y for c in curves for _, y in c.points), default=1.0))

    def at(x: float, y: float) -> tuple[float, float]:
        return (LEFT + x / x_top * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / ticks[-1] * (HEIGHT - TOP - BOTTOM))

    def parts() -> Iterator[str]:
        yield from _grid(ticks, [at(0, tick)[1] for tick in ticks], [short(tick) for tick in ticks])
        for x in nice_ticks(x_top, 8):
            if x <= x_top:
                yield _text(at(x, 0)[0], HEIGHT - BOTTOM + 18, f"{x:g}", "axis", "middle")
        yield _text(WIDTH - RIGHT, HEIGHT - 4, x_label, "axis", "end")
        for curve in curves:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve.points))
            if path:
                (x0, y0), (x1, _) = at(curve.points[0][0], 0), at(curve.points[-1][0], 0)
                yield f'<polygon class="{curve.tone} area" points="{x0:.1f},{y0:.1f} {path} {x1:.1f},{y0:.1f}"/>'
                yield f'<polyline class="{curve.tone} line" points="{path}"/>'
        for mark in marks:
            x = at(mark.x, 0)[0]
            yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            late = x > WIDTH * 0.75
            yield _text(x - 6 if late else x + 6, TOP + 12, mark.label, "marked", "end" if late else "start")
        for n, curve in enumerate(curves if len(curves) > 1 else ()):
            x = WIDTH - RIGHT - 120 * (len(curves) - n)
            yield f'<rect class="{curve.tone} bar" x="{x}" y="2" width="12" height="12" rx="2"/>'
            yield _text(x + 18, 12, curve.name, "axis")

    return _svg(title, HEIGHT, parts())


def trend(title: str, curves: Sequence[Line], *, names: Sequence[tuple[float, str]], step: float = 0.02,
          bands: Sequence[Band] = (), marks: Sequence[Mark] = ()) -> str:
    """Curves whose differences count: the scale begins where they do, at a multiple of `step`. `names` stand below by
    x; `bands` lie under the curves, a strip each, with their names."""
    values = [y for c in curves for _, y in c.points]
    low, high = (math.floor(min(values) / step), math.ceil(max(values) / step)) if values else (0, 1)
    ticks = [n * step for n in range(low, max(high, low + 1) + 1)]
    xs = [x for c in curves for x, _ in c.points] + [x for band in bands for x in (band.begin, band.end)]
    first, last = min(xs, default=0.0), max(xs, default=1.0)
    floor = HEIGHT - BOTTOM - (STRIP if bands else 0)

    def at(x: float, y: float) -> tuple[float, float]:
        return (LEFT + (x - first) / max(last - first, 1e-9) * (WIDTH - LEFT - RIGHT),
                floor - (y - ticks[0]) / (ticks[-1] - ticks[0]) * (floor - TOP - 10))

    def parts() -> Iterator[str]:
        yield from _grid(ticks, [at(first, tick)[1] for tick in ticks], [f"{tick:.2f}" for tick in ticks])
        for x, name in names:
            yield _text(at(x, ticks[0])[0], HEIGHT - BOTTOM + 18, name, "axis", "middle")
        for band in bands:
            x0, x1 = at(band.begin, ticks[0])[0], at(band.end, ticks[0])[0]
            yield (f'<rect class="{band.tone} bar" x="{x0:.1f}" y="{floor + 6}" width="{max(x1 - x0 - 2, 1):.1f}" '
                   f'height="{STRIP - 8}" rx="2"><title>{escape(band.name)}</title></rect>')
            yield _text((x0 + x1) / 2, floor + STRIP - 6, band.name, "on", "middle")
        for mark in marks:
            x = at(mark.x, ticks[0])[0]
            yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}"/>'
            yield _text(x + 5, TOP + 8, mark.label, "marked")
        for curve in curves:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve.points))
            yield f'<polyline class="{curve.tone} line" points="{path}"/>'
            yield from (f'<circle class="{curve.tone} bar" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>'
                        f"{escape(curve.name)}: {point[1]:.3f}</title></circle>"
                        for point in curve.points for x, y in [at(*point)])
        for n, curve in enumerate(curves if len(curves) > 1 else ()):
            x = WIDTH - RIGHT - 150 * (len(curves) - n)
            yield f'<rect class="{curve.tone} bar" x="{x}" y="2" width="12" height="12" rx="2"/>'
            yield _text(x + 18, 12, curve.name, "axis")

    return _svg(title, HEIGHT, parts())


def _grid(ticks: Sequence[float], heights: Sequence[float], labels: Sequence[str]) -> Iterator[str]:
    for _, y, label in zip(ticks, heights, labels, strict=True):
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(LEFT - 8, y + 4, label, "axis", "end")


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Bars that lie, one below another, each with its number; lengths by the root, so that small ones are seen."""
    top = max((row.value for row in rows), default=1.0) or 1.0

    def parts() -> Iterator[str]:
        for n, row in enumerate(rows):
            y = 4 + n * BAR_HEIGHT
            long = max(2.0, math.sqrt(row.value / top) * (WIDTH - LABEL_WIDTH - 90))
            yield f"<g><title>{escape(row.hint)}</title>"
            yield _text(LABEL_WIDTH - 10, y + 15, row.name, "", "end")
            yield f'<rect class="{row.tone} bar" x="{LABEL_WIDTH}" y="{y}" width="{long:.1f}" height="18" rx="2"/>'
            yield _text(LABEL_WIDTH + long + 8, y + 15, f"{row.value:,.0f}", "number") + "</g>"

    return _svg(title, 8 + len(rows) * BAR_HEIGHT, parts())


def columns(title: str, days: Sequence[Bar], *, limit: float, limit_label: str, names: Sequence[tuple[int, str]],
            marks: Sequence[tuple[int, str]] = ()) -> str:
    """Shares as standing bars, one a day, with the limit that raises an event. `names` and `marks` are by the bar."""
    ticks = [t for t in nice_ticks(max([*(d.value for d in days), limit])) if t <= 1]
    wide = (WIDTH - LEFT - RIGHT) / max(len(days), 1)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - value / ticks[-1] * (HEIGHT - TOP - BOTTOM)

    def x_of(n: float) -> float:
        return LEFT + n * wide

    def parts() -> Iterator[str]:
        yield from _grid(ticks, list(map(y_of, ticks)), [f"{tick:.0%}" for tick in ticks])
        for n, day in enumerate(days):
            top = y_of(day.value)
            yield (f'<rect class="{day.tone} bar" x="{x_of(n):.1f}" y="{top:.1f}" width="{wide * 0.82:.2f}" '
                   f'height="{max(HEIGHT - BOTTOM - top, 0.3):.1f}"><title>{escape(day.hint)}</title></rect>')
        for n, name in names:
            yield _text(x_of(n), HEIGHT - BOTTOM + 18, name, "axis")
        y = y_of(limit)
        yield f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(WIDTH - RIGHT, y - 6, limit_label, "marked", "end")
        for n, label in marks:
            x = x_of(n + 0.5)
            yield f'<circle class="dot" cx="{x:.1f}" cy="{TOP + 4}" r="5"/>' + _text(x + 10, TOP + 8, label, "marked")

    return _svg(title, HEIGHT, parts())
