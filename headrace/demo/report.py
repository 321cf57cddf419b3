"""What remains of a run: one HTML file with its pictures in it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from headrace.demo import charts, looppage
from headrace.demo.board import ALARMING, Sample, moving, per_slice
from headrace.demo.charts import Bar, Line, Mark

if TYPE_CHECKING:
    from headrace.demo.data import Flights
    from headrace.demo.run import Outcome

TONES = {"departures": "one", "arrivals": "two"}
SLICES = 14

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --line: #d9dee5; --page: #fff; --one: #2563eb;
  --two: #b45309; --three: #0f766e; --four: #6b7280; --bad: #c81e1e; --good: #15803d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #333c48; --page: #12161c;
  --one: #6ea2ff; --two: #f0a04b; --three: #2dd4bf; --four: #9aa5b4; --bad: #ff6b6b; --good: #4ade80; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 960px;
  margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .2rem; } p { margin: .3rem 0 .8rem; }
.soft { color: var(--soft); } code { font-size: .92em; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; flex: 1 1 7rem; }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; } .tile.good b { color: var(--good); }
.tile.bad b { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
svg { width: 100%; height: auto; display: block; font: 13px system-ui, sans-serif; } svg text { fill: var(--ink); }
svg .axis { fill: var(--soft); } svg .marked { fill: var(--bad); font-weight: 600; } svg .number { font-weight: 600; }
.grid { stroke: var(--line); } .mark { stroke: var(--bad); stroke-dasharray: 5 4; stroke-width: 1.5; }
.dot { fill: var(--bad); } .line { fill: none; stroke-width: 2; } .area { opacity: .12; stroke: none; }
.one.line { stroke: var(--one); } .one.bar, .one.area { fill: var(--one); } .two.line { stroke: var(--two); }
.two.bar, .two.area { fill: var(--two); } .bad.bar { fill: var(--bad); }
.three.line { stroke: var(--three); } .three.bar { fill: var(--three); } .four.line { stroke: var(--four); }
.four.bar { fill: var(--four); } svg .on { fill: var(--page); font-weight: 600; } .why { text-align: left; }
.day { white-space: nowrap; }
.rejected { color: var(--two); } .blessed { color: var(--good); } .failed { color: var(--bad); }
pre { white-space: pre-wrap; font-size: .82em; } summary { cursor: pointer; }
"""


def write(outcome: Outcome, flights: Flights) -> None:
    """Write the report to its place."""
    outcome.report.write_text(render(outcome, flights))


def render(outcome: Outcome, flights: Flights) -> str:
    """The report as HTML."""
    board, numbers = outcome.board, outcome.summary
    sections = [
        ("Speed", "Both topics were loaded, then drained by one worker each at the same time, beside the broker on "
                  f"this machine: {board.records_per_second:,} records/s from first commit to last, exactly once.",
         _throughput([s for s in board.samples if s.act == "speed"])),
        ("Two kills", _kill_words(outcome), _lag(outcome)),
        ("Held back, by expectation", "Counted from the headers of the quarantine topics. A record may break several "
         "expectations. Great Expectations counts the same on the same data. (Lengths by the square root.)",
         _held(outcome)),
        ("Cancelled, day by day", _storm_words(outcome), _days(outcome, flights)),
        *(looppage.sections(outcome.loop, board.loop) if outcome.loop else [])]
    body = "".join(f"<h2>{escape(title)}</h2><p class=soft>{escape(words)}</p>{drawn}"
                   for title, words, drawn in sections)
    faults = "".join(f"<p class=marked>✗ {escape(fault)}</p>" for fault in outcome.faults)
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>headrace demo {escape(board.run)}</title><style>{STYLE}</style></head><body>"
            f"<h1>headrace demo</h1><p class=soft>{board.flights:,} flights that left New York in 2013, through "
            f"Kafka, in {numbers['seconds']:g} s. Run <code>{escape(board.run)}</code>.</p>{faults}{_tiles(outcome)}"
            f"{_table(outcome)}{body}</body></html>\n")


def _tiles(outcome: Outcome) -> str:
    numbers = outcome.summary
    tiles = [("kill -9", numbers["kills"], ""), ("lost", numbers["lost"], "bad" if numbers["lost"] else "good"),
             ("doubled", numbers["doubled"], "bad" if numbers["doubled"] else "good"),
             ("alerts", numbers["events"]["alert"], "good" if numbers["events"]["alert"] == 1 else "bad"),
             ("lag at the end", numbers["lag"], "bad" if numbers["lag"] else "good"),
             ("records/s", numbers["records_per_second"], ""),
             *([("AUC with the loop", numbers["loop"]["mean_auc"]["gated"], "")] if "loop" in numbers else [])]
    return '<div class="tiles">' + "".join(f'<div class="tile {tone}"><b>{n:,}</b>{name}</div>'
                                           for name, n, tone in tiles) + "</div>"


def _table(outcome: Outcome) -> str:
    """Every act's flows: where each record went."""
    names = ("act, flow", "records in", "valid", "held back", "rejected", "lost", "doubled", "alerts")
    rows = [(f"{act}, {flow}", n.records_in, n.valid, n.quarantined, n.rejected, n.lost, n.doubled,
             n.alerts if outcome.staged[act][-1].alerts and flow == "arrivals" else "–")
            for (act, flow), n in outcome.tallies.items()]
    head = "".join(f"<th>{name}</th>" for name in names)
    cells = ("".join(f"<td>{cell:,}</td>" if isinstance(cell, int) else f"<td>{escape(cell)}</td>" for cell in row)
             for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _throughput(samples: Sequence[Sample]) -> str:
    series = {flow: moving([s for s in samples if s.flow == flow]) for flow in TONES}
    begin_s = min((s.at_s for each in series.values() for s in each), default=0.0)
    curves = [Line(flow, TONES[flow], [(at_s - begin_s, rate) for at_s, rate in per_slice(each, SLICES)])
              for flow, each in series.items()]
    return charts.lines("records per second over time", curves, x_label="seconds; records/s")


def _kill_words(outcome: Outcome) -> str:
    said = [f"at {kill.done:,} of {kill.end:,} records (the next commit came {kill.back_s or 0:.1f} s later)"
            for kill in outcome.board.kills]
    killed = outcome.tallies["kill", "arrivals"]
    return (f"The worker of the arrivals was killed {' and '.join(said)}. A read_committed reader then looked for "
            f"every source position in the outputs: {killed.lost} lost, {killed.doubled} doubled. Alerts raised: "
            f"{killed.alerts}.")


def _lag(outcome: Outcome) -> str:
    series = moving(outcome.board.series("kill", "arrivals"))
    begin_s = series[0].at_s if series else 0.0
    marks = [Mark(kill.at_s - begin_s, "kill -9") for kill in outcome.board.kills]
    points = [(s.at_s - begin_s, float(s.lag)) for s in _thinned(series)]
    return charts.lines("lag over time, with the kills", [Line("arrivals", "two", points)], marks=marks,
                        x_label="seconds; records to go")


def _thinned(series: Sequence[Sample]) -> list[Sample]:
    """Without the looks that saw nothing new on either side."""
    return [s for n, s in enumerate(series)
            if n in (0, len(series) - 1) or series[n - 1].done != s.done or series[n + 1].done != s.done]


def _held(outcome: Outcome) -> str:
    rows = [Bar(f"{flow} · {id_}", count, TONES[flow], f"{id_}: {count:,} of {numbers['records_in']:,} {flow}")
            for flow, numbers in outcome.summary["flows"].items() for id_, count in numbers["by_expectation"].items()]
    return charts.bars("records held back by expectation", rows)


def _storm_words(outcome: Outcome) -> str:
    alerts = outcome.board.alerts
    if not alerts:
        return "No alert was raised."
    said = "; ".join(f"{a.window_start:%d %B}: {a.matched} of {a.rows} flights, {a.observed:.0%}"
                     for a in alerts if a.window_start)
    return (f"A share of {ALARMING:.0%} in a day raises an alert, and no second one while it lasts. Raised: "
            f"{len(alerts)} ({said}). The year drained at once, and drained with kills, raised the same.")


def _days(outcome: Outcome, flights: Flights) -> str:
    fired = {alert.window_start.date() for alert in outcome.board.alerts if alert.window_start}
    bars = [Bar(day.date.isoformat(), day.share, "bad" if day.share >= ALARMING else "one",
                f"{day.date:%a %d %b}: {day.cancelled} of {day.flights} cancelled, {day.share:.1%}")
            for day in flights.days]
    return charts.columns(
        "share of flights cancelled by day", bars, limit=ALARMING, limit_label="the trigger's threshold",
        names=[(n, f"{day.date:%b}") for n, day in enumerate(flights.days) if day.date.day == 1],
        marks=[(n, f"alert, {day.date:%d %b}") for n, day in enumerate(flights.days) if day.date in fired])
