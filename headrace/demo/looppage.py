"""The report's pages on the loop: AUC by month for each policy, who was in charge, and why each change came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from headrace.demo import charts
from headrace.demo.charts import Band, Line, Mark

if TYPE_CHECKING:
    from headrace.demo.referee import Verdict
    from headrace.demo.told import Told

TONES = {"static": "four", "last_two_months": "two", "cumulative": "three", "gated": "one"}
NAMES = {"static": "trained once", "last_two_months": "last two months", "cumulative": "all so far",
         "gated": "the loop"}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
Section = tuple[str, str, str]


def sections(judged: Verdict, told: Told) -> list[Section]:
    """(title, words, drawn) of each."""
    return [("The loop: how right the model was", _words(judged.summary), _by_month(judged.summary)),
            ("The loop: who was in charge", _charge_words(judged.summary), _course(told)),
            ("The loop: every retraining, and why", "As `headrace loop explain` has it: cause, offsets, data, run, "
             "metrics, decision, and what followed.", _asked(judged)),
            *([("The loop: were the rejections right?", "A rejected version is held against the one that stayed, on "
                "the flights of the weeks that followed, which neither had seen.", _rejected(judged.summary))]
              if judged.summary["rejected"] else [])]


def _words(numbers: Mapping[str, Any]) -> str:
    means = numbers["mean_auc"]
    parts = [f"{NAMES[name]} {means[name]:.3f} ({numbers['retrains'][name]} retrainings)" for name in NAMES]
    return (f"Whether a flight is more than a quarter of an hour late, said before it leaves; mean AUC of the months: "
            f"{', '.join(parts)}. The same features, algorithm and flights for all; every one of "
            f"{numbers['predictions']:,} predictions was made again by the version that signed it.")


def _by_month(numbers: Mapping[str, Any]) -> str:
    monthly = numbers["monthly_auc"]
    months = sorted({int(month) for each in monthly.values() for month in each})
    curves = [Line(NAMES[name], TONES[name], [(float(month), monthly[name][str(month)]) for month in months])
              for name in NAMES]
    chart = charts.trend("AUC by month and policy", curves, names=[(float(m), MONTHS[m - 1]) for m in months])
    means = numbers["mean_auc"]
    table = _table(("AUC", *(MONTHS[m - 1] for m in months), "mean", "retrainings"),
                   [(NAMES[name], *(f"{monthly[name][str(m)]:.3f}" for m in months), f"{means[name]:.3f}",
                     str(numbers["retrains"][name])) for name in NAMES])
    return chart + table


def _charge_words(numbers: Mapping[str, Any]) -> str:
    return (f"{numbers['triggers']} triggers led to {numbers['switches']} switches and {numbers['rejections']} "
            "rejections. The curve is the AUC of each week, by the monitor; below it stands the version that "
            "predicted. Dashed lines are rejections.")


def _course(told: Told) -> str:
    weeks = [week for week in told.weeks.values() if week.auc is not None]
    end = max((_x(week.start) + 7 for week in weeks), default=1.0)
    starts = [_x(switch.at) for switch in told.switches]
    bands = [Band(begin, until, f"v{switch.to}", ("one", "three")[n % 2])
             for n, (switch, begin, until) in enumerate(zip(told.switches, starts, [*starts[1:], end], strict=True))]
    marks = [Mark(_x(each.request.at), "rejected") for each in told.retrainings.values() if each.state == "rejected"]
    names = [(float(datetime(week.start.year, month, 1).timetuple().tm_yday), MONTHS[month - 1])
             for week in weeks[:1] for month in sorted({each.start.month for each in weeks})]
    return charts.trend("AUC by week, and the version in charge", [Line("AUC of the week", "one", [
        (_x(week.start) + 3.5, week.auc or 0.0) for week in weeks])], names=names, step=0.05, bands=bands, marks=marks)


def _x(at: datetime) -> float:
    """The day of the year."""
    return at.timetuple().tm_yday + at.hour / 24


def _asked(judged: Verdict) -> str:
    rows = "".join(
        f"<tr><td class=day>{escape(each['at'])}</td><td>{escape(each['rule'])}</td><td class=\"{each['outcome']}\">"
        f"{escape(each['outcome'])}</td><td class=why><details><summary>{escape(each['reason'])}</summary>"
        f"<pre>{escape(text)}</pre></details></td></tr>"
        for each, (_, text) in zip(judged.summary["asked"], judged.explained, strict=True))
    return f"<table><tr><th>asked</th><th>rule</th><th>outcome</th><th class=why>why</th></tr>{rows}</table>"


def _rejected(numbers: Mapping[str, Any]) -> str:
    def rows() -> Iterator[Sequence[str]]:
        for each in numbers["rejected"]:
            right = {True: "rightly", False: "wrongly", None: "cannot be said"}[each["rightly"]]
            yield (each["at"], f"v{each['version']}", _number(each["auc_rejected"]),
                   f"v{each['champion']}" if each["champion"] else "–", _number(each["auc_champion"]),
                   f"{each['weeks']:g}", f"{each['flights']:,}", right)

    return _table(("rejected on", "version", "its AUC after", "stayed", "its AUC after", "weeks", "flights", "so"),
                  list(rows()))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return (f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"
            + "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows) + "</table>")
