"""Windows as HTML: one page each that needs nothing else, and an index of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from headrace.contractctl import trend
from headrace.contractctl.html import code, document, table, text
from headrace.contractctl.judged import failing, many
from headrace.contractctl.page import MILD, broken, summary
from headrace.contractctl.trend import Point, Trend
from headrace.contractctl.windows import Window, by_series

INDEX = "index.html"
MADE_BY = "headrace contracts report"
TREND_MAX = 30
"""Windows in a trend: the one of the page, and those before it."""
FAILED_SHOWN_MAX = 5


def pages(found: Sequence[Window], *, last: int) -> Iterator[tuple[str, str]]:
    """(file name, HTML): the index, then a page for each of the last windows of `found`, which are oldest first. The
    windows before these are in the trends."""
    shown = found[-last:]
    yield INDEX, _index(shown, len(found))
    wanted = {window.event.id for window in shown}
    for series in by_series(found).values():
        for at, window in enumerate(series):
            if window.event.id in wanted:
                beside = [series[i] if 0 <= i < len(series) and series[i].event.id in wanted else None
                          for i in (at - 1, at + 1)]
                yield f"{window.name}.html", _page(window, series[max(0, at + 1 - TREND_MAX):at + 1], *beside)


def _index(shown: Sequence[Window], total: int) -> str:
    bad = sum(not window.event.ok for window in shown)
    rows = (f'<tr><td><a href="{text(window.name)}.html">{text(window.when)}</a></td><td>{text(_step(window))}'
            f"<small>{text(window.suite)}</small></td>"
            f"<td>{code(window.subject)}</td><td>{window.event.rows:,}</td>"
            f'<td class="{_tone(window)}">{_word(window)}</td><td>{len(window.failed)}</td>'
            f"<td>{_failed(window)}</td></tr>" for window in reversed(shown))
    rest = f", the last of {total:,}" if total > len(shown) else ""
    names = ("window", "flow/step, suite", "topic/partition", "records", "verdict", "failures", "what fails")
    return document("Windows held against contracts", "<h1>Windows held against contracts</h1>"
                    f'<p>{many(len(shown), "window")}{rest}; {bad:,} {"fails" if bad == 1 else "fail"}.</p>'
                    f'<p class="soft">Newest first. {MILD}</p>{table(names, rows)}', made_by=MADE_BY)


def _failed(window: Window) -> str:
    more = f" and {len(window.failed) - FAILED_SHOWN_MAX:,} more" if len(window.failed) > FAILED_SHOWN_MAX else ""
    return ", ".join(code(id_) for id_ in window.failed[:FAILED_SHOWN_MAX]) + more


def _page(window: Window, before: Sequence[Window], previous: Window | None, following: Window | None) -> str:
    """`before` ends with the window itself."""
    e = window.event
    rows = Trend([Point(float(w.event.rows), True) for w in before])
    body = _verdicts(window, before) if window.judged else _without_detail(window, before)
    return document(
        f"{window.suite} {_word(window)} on {window.subject}, {window.when}",
        f'<p>{_links(previous, following)}</p><h1><span class="{_tone(window)}">{text(window.suite)} {_word(window)}'
        f"</span> on {text(window.subject)}</h1><p>{text(window.when)}: {text(_why(window))}</p>"
        f'<p class="soft">{many(e.rows, "record")}{_offsets(window)}, judged by {text(_step(window))}'
        f'{f" of {text(e.owner)}" if e.owner else ""}. {MILD}</p>'
        f"<h2>{many(e.rows, 'record')}</h2>{rows.html()}{body}", style=trend.STYLE, made_by=MADE_BY)


def _verdicts(window: Window, before: Sequence[Window]) -> str:
    held = [{each.expectation.id: each.verdict.success for each in w.judged} for w in before]
    beside = {each.expectation.id: trend.of(each.expectation, _points(each.expectation.id, before, held)).html()
              for each in window.judged}
    return summary(window.judged, beside) + "".join(broken(each, "record") for each in window.judged)


def _points(id_: str, before: Sequence[Window], held: Sequence[Mapping[str, bool]]) -> list[Point]:
    return [Point(w.event.measures.get(id_), of.get(id_, True)) for w, of in zip(before, held, strict=True)]


def _without_detail(window: Window, before: Sequence[Window]) -> str:
    """What the event itself says, where it has no validation result that can be read."""
    reasons = "".join(f"<p>{text(reason)}</p>" for reason in window.event.reasons)
    rows = (f"<tr><td>{code(id_)}</td><td>{text(trend.number(value))}</td>"
            f"<td>{Trend([Point(w.event.measures.get(id_), True) for w in before]).html()}</td></tr>"
            for id_, value in sorted(window.event.measures.items()))
    return reasons + table(("measure", "value", "trend"), rows)


def _why(window: Window) -> str:
    if window.unreadable is not None:
        return window.unreadable
    if not window.judged:
        return f"{many(len(window.failed), 'reason')} given, and no validation result"
    lost = failing(window.judged)
    parts = ", ".join(f"{n} {severity}" for severity, n in lost.items() if n)
    return (f"{sum(lost.values())} of {many(len(window.judged), 'expectation')} fail ({parts})" if parts else
            f"{many(len(window.judged), 'expectation')}, none fails")


def _links(previous: Window | None, following: Window | None) -> str:
    links = [f'<a href="{INDEX}">all windows</a>']
    if previous is not None:
        links.insert(0, f'<a href="{text(previous.name)}.html">← {text(previous.when)}</a>')
    if following is not None:
        links.append(f'<a href="{text(following.name)}.html">{text(following.when)} →</a>')
    return " · ".join(links)


def _offsets(window: Window) -> str:
    first, last = window.event.offset_first, window.event.offset_last
    return f", offsets {first:,} to {last:,}" if first is not None and last is not None else ""


def _step(window: Window) -> str:
    return f"{window.event.flow}/{window.event.step}"


def _word(window: Window) -> str:
    return "holds" if window.event.ok else "fails"


def _tone(window: Window) -> str:
    return "good" if window.event.ok else "bad"
