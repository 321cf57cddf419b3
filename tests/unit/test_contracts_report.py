"""Pages of windows: verdicts as events, the trend before, links that lead somewhere, and nothing that becomes markup.

What is judged is judged by the contract itself; the processor that raises such events is driven once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.cli import report as cli
from headrace.contractctl import reports, trend
from headrace.contractctl.trend import Point, Trend
from headrace.contractctl.windowpages import FAILED_SHOWN_MAX, TREND_MAX, pages
from headrace.contractctl.windows import Window, windows
from headrace.contracts import Expectation, compile_suite, parse
from headrace.contracts.results import suite_result
from headrace.control import Verdict, digest
from headrace.errors import UserError
from headrace.processors.validate_window import ValidateWindow, ValidateWindowConfig
from tests.unit.statekit import Driven, records
from tests.unit.test_contracts_page import HOSTILE, Page

pytestmark = pytest.mark.unit

START = datetime(2013, 2, 8, 17, tzinfo=UTC)
SCHEMA = pa.schema([("plane", pa.string()), ("miles", pa.int32())])
SUITE: list[dict[str, Any]] = [
    {"id": "given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "plane", "mostly": 0.9},
     "severity": "warning"},
    {"id": "american", "type": "expect_column_values_to_match_regex", "kwargs": {"column": "plane", "regex": "^N"}},
    {"id": "mean_miles", "type": "expect_column_mean_to_be_between",
     "kwargs": {"column": "miles", "min_value": 100, "max_value": 200.5}},
    {"id": "6f2d0a54-3c1b-4a0e-9d57-0c8f6b1e7a42", "type": "expect_column_median_to_be_between",
     "kwargs": {"column": "miles", "min_value": 90}, "meta": {"notes": "half of them"}}]
GOOD = [("N1", 100), ("N2", 200)]
CHECK = {"id": "volume", "type": "volume", "severity": "info", "success": False, "columns": [], "observed": 2.0,
         "says": "2 records; at least 3 are expected", "examples": []}


def event(number: int, rows: Sequence[tuple[str | None, int | None]] = GOOD, suite: list[dict[str, Any]] | None = None,
          checks: Sequence[Mapping[str, Any]] = (), **fields: Any) -> Verdict:
    """The verdict on an hour of these rows."""
    made = parse({"name": "trip", "expectations": SUITE if suite is None else suite}, "trip.expectations.json")
    batch = pa.RecordBatch.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)
    verdicts = compile_suite(made, SCHEMA).check(batch).verdicts
    detail = suite_result(made, verdicts, meta={"batch_id": "b", "headrace": {"checks": list(checks)}})
    found = {e.id: v.result.get("observed_value", v.result.get("unexpected_percent")) for e, v in verdicts}
    start = START + timedelta(hours=number)
    bad = [f"{e.id} ({e.severity}): fails" for e, v in verdicts if not v.success]
    told = Verdict(
        id=digest("trips", number, *fields.items()), at=start + timedelta(hours=1), about="contract", flow="trips",
        step="hourly", ok=not any("(critical)" in reason for reason in bad), topic="trips", partition=0, window=number,
        offset_first=2 * number, offset_last=2 * number + 1, window_start=start, window_end=start + timedelta(hours=1),
        rows=len(rows), measures={k: float(v) for k, v in found.items() if v is not None}, reasons=bad,
        detail=json.dumps(detail), owner="anna")
    return replace(told, **fields)


def site(events: Sequence[Verdict], last: int = 100) -> dict[str, Page]:
    """The pages by name, all of which are well-formed."""
    return {name: Page(html) for name, html in pages(windows(events), last=last)}


def links(page: Page) -> list[str]:
    return [str(attributes["href"]) for tag, attributes in page.elements if tag == "a"]


def test_the_index_has_the_windows_newest_first_and_every_link_leads_to_a_page() -> None:
    events = [event(1), event(0, [("D1", 100), (None, 900)]), event(2, partition=3), event(1)]
    made = site(events)
    index = made["index.html"]
    names = ("window", "flow/step, suite", "topic/partition", "records", "verdict", "failures", "what fails")
    assert index.rows == [
        list(names), ["2013-02-08 19:00 to 20:00 UTC", "trips/hourlytrip", "trips/3", "2", "holds", "0", ""],
        ["2013-02-08 18:00 to 19:00 UTC", "trips/hourlytrip", "trips/0", "2", "holds", "0", ""],
        ["2013-02-08 17:00 to 18:00 UTC", "trips/hourlytrip", "trips/0", "2", "fails", "3",
         "given, american, mean_miles"]]
    assert "3 windows; 1 fails." in index.text
    assert len(made) == 4
    assert {href for page in made.values() for href in links(page)} <= made.keys()
    assert set(links(index)) == made.keys() - {"index.html"}
    first, second, other = (next(n for n in made if n.startswith(f"trips-{at}-")) for at in ("0-0", "0-1", "3-2"))
    assert links(made[first]) == ["index.html", second]
    assert links(made[second]) == [first, "index.html"]
    assert links(made[other]) == ["index.html"]


def test_a_window_has_its_expectations_examples_ranges_and_links() -> None:
    page = site([event(0), event(1, [("D<1>", 100), (None, 900), ("N2", None)], checks=[CHECK])])
    (window,) = [p for name, p in page.items() if name.startswith("trips-0-1-")]
    assert "trip fails on trips/0" in window.text
    assert "2013-02-08 18:00 to 19:00 UTC: 4 of 5 expectations fail (2 critical, 1 warning, 1 info)" in window.text
    assert "3 records, offsets 2 to 3, judged by trips/hourly of anna." in window.text
    american = window.row("american")
    assert american[1:6] == ["plane", "regex = ^N", "critical", "fails", "1 unexpected (50 %)"]
    assert american[6] == "min 0 % · max 50 % · last 50 %held to 0 %"
    assert window.row("given")[3:] == ["warning", "fails", "1 unexpected (33.3 %), mostly 0.9",
                                       "min 0 % · max 33.33 % · last 33.33 %held to 0 to 10 %"]
    assert window.row("mean_miles")[4:] == ["fails", "observed 500.0",
                                            "min 150 · max 500 · last 500held to 100 to 200.5"]
    median = window.row("6f2d0a54")
    assert "half of them" in median[0]
    assert median[6].endswith("held to at least 90")
    assert window.row("volume")[3:6] == ["info", "fails", "2 records; at least 3 are expected"]
    assert [row for row in window.rows if row[0] in ("“D<1>”", "null")] == [["null", "1"], ["“D<1>”", "1"]]
    svgs = [attributes for tag, attributes in window.elements if tag == "svg"]
    assert len(svgs) == 5  # the records' and four measures'
    assert svgs[2]["aria-label"] == "min 0 % · max 50 % · last 50 %"
    assert sum(tag == "circle" and attributes["class"] == "off" for tag, attributes in window.elements) == 3


def test_the_trend_is_of_the_windows_before_and_of_one_partition() -> None:
    events = [event(n, [("N1", 100 + n)]) for n in range(TREND_MAX + 5)]
    events += [event(3, [("N1", 7)], partition=1)]
    made = site(events, last=2)
    assert len(made) == 3
    assert "2 windows, the last of 36" in made["index.html"].text
    page = next(p for name, p in made.items() if name.startswith(f"trips-0-{TREND_MAX + 4}-"))
    assert page.row("mean_miles")[6].startswith(f"min 105 · max {TREND_MAX + 104} · last {TREND_MAX + 104}")
    (curve,) = re.findall(r'points="([^"]*)"', Trend([Point(1.0, True), Point(2.0, True)]).html())
    assert len(curve.split()) == 2
    before = next(p for name, p in made.items() if name.startswith(f"trips-0-{TREND_MAX + 3}-"))
    assert len(links(before)) == 2  # the one before it has no page


def test_no_value_becomes_markup() -> None:
    bad = [("a</script><script>alert(1)</script>", 100), (f"x{HOSTILE}", 100), ("N1", 100)]
    odd = {**CHECK, "id": HOSTILE, "type": HOSTILE, "says": HOSTILE, "examples": [HOSTILE], "columns": [HOSTILE]}
    suite = [{**SUITE[1], "id": f"id{HOSTILE}", "meta": {"notes": f"notes{HOSTILE}"}}]
    hostile = [event(n, bad, suite, [odd], topic=f"topic{HOSTILE}", flow=f"flow{HOSTILE}", step=f"step{HOSTILE}",
                     owner=f"owner{HOSTILE}", id=f"{n}{HOSTILE}") for n in (0, 1)]
    hostile.append(replace(hostile[0], id="x", window=3, detail=None, reasons=[f"r{HOSTILE}"], measures={HOSTILE: 1.0}))
    hostile.append(replace(hostile[0], id="y", window=4, detail=json.dumps({"results": [{HOSTILE: HOSTILE}]})))
    for name, html in pages(windows(hostile), last=10):
        assert re.fullmatch(r"[\w.-]+\.html", name)
        assert "<script" not in html
        assert "<img" not in html
        page = Page(html)
        assert {tag for tag, _ in page.elements} <= {
            "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "span", "table", "tr", "th", "td",
            "code", "small", "br", "a", "svg", "rect", "polyline", "circle"}
        assert not {a for _, attributes in page.elements for a in attributes} & {"onerror", "src", "onload"}
        policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy == "default-src 'none'; style-src 'unsafe-inline'"
        assert all("//" not in href for href in links(page))
    assert "a</script><script>alert(1)" in next(p.text for n, p in site(hostile).items() if "-0-0-" in n)


def test_a_window_without_a_result_shows_what_its_event_says() -> None:
    plain = event(5, [("D1", 100)], detail=None)
    made = site([event(4), plain, event(6, detail="no json"), event(7, detail='{"results": [{"success": true}]}'),
                 event(8, detail='{"results": 3}')])
    page = next(p for name, p in made.items() if "-0-5-" in name)
    assert "1 reason given, and no validation result" in page.text
    assert "american (critical): fails" in page.text
    assert page.row("mean_miles") == ["mean_miles", "100", "min 100 · max 150 · last 100"]
    assert made["index.html"].row("2013-02-08 22:00")[4:] == ["fails", "1", "american"]
    said = [next(p.text for name, p in made.items() if f"-0-{at}-" in name) for at in (6, 7, 8)]
    assert "its detail is no JSON object" in said[0]
    assert "its detail is no validation result: KeyError: 'expectation_config'" in said[1]
    assert "its detail is no validation result: TypeError" in said[2]


def test_of_many_examples_the_first_are_counted() -> None:
    made = site([event(0, [*[("D1", 1)] * 15, *[("D2", 1)] * 15])])
    page = next(p for name, p in made.items() if name != "index.html")
    assert [row for row in page.rows if len(row) == 2] == [
        ["plane", "times, of the first 20"], ["“D1”", "15"], ["“D2”", "5"]]


def test_windows_of_records_have_numbers_and_no_time() -> None:
    (window,) = windows([event(12, window_start=None, window_end=None)])
    assert window.when == "window 12, until 2013-02-09 06:00:00 UTC"
    (day,) = windows([event(0, window_start=START, window_end=START + timedelta(days=1, seconds=5))])
    assert day.when == "2013-02-08 17:00:00 to 2013-02-09 17:00:05 UTC"
    long = windows([event(1, topic="t" * 249)])[0]
    assert len(long.name) < 200


def test_other_verdicts_and_other_flows_are_passed_over() -> None:
    events = [event(0), event(1, flow="b"), event(2, step="daily"), event(3, topic="late"), event(4, about="drift")]
    assert [w.event.window for w in windows(events)] == [0, 1, 2, 3]
    assert [w.event.window for w in windows(events, flow="trips", step="hourly", topic="trips")] == [0]
    assert cli._none(events, "trip", None, None) == "no window was judged of flow “trip”; did you mean “trips”?"
    assert cli._none(events, "b", "daily", None) == "no window was judged of all these together"
    assert cli._none(events[4:], "b", None, None) == "no window has been judged yet"


def test_many_failures_are_counted_and_a_few_named() -> None:
    suite = [{**SUITE[1], "id": f"e{n}"} for n in range(FAILED_SHOWN_MAX + 3)]
    row = site([event(0, [("D", 1)], suite)])["index.html"].rows[1]
    assert row[5:] == ["8", "e0, e1, e2, e3, e4 and 3 more"]


@pytest.mark.parametrize(("type_", "kwargs", "range_"), [
    ("expect_column_values_to_be_between", {"mostly": 0.95, "min_value": 3}, (0.0, 5.0)),
    ("expect_column_values_to_be_unique", {}, (0.0, 0.0)),
    ("expect_column_mean_to_be_between", {"min_value": 3, "max_value": None}, (3.0, None)),
    ("expect_table_row_count_to_equal", {"value": 7}, (7.0, 7.0)),
    ("expect_column_max_to_be_between", {"max_value": "2013-02-08T00:00:00"}, (None, None)),
    ("expect_column_quantile_values_to_be_between", {"quantile_ranges": {}}, (None, None)),
    ("volume", {}, (None, None))])
def test_the_range_an_expectation_is_held_to(type_: str, kwargs: dict[str, Any], range_: trend.Range) -> None:
    assert trend.held_to(Expectation("e", type_, kwargs, "critical", "")) == range_


def test_a_trend_with_gaps_and_numbers_of_every_size() -> None:
    nan = float("nan")
    html = Trend([Point(v, ok) for v, ok in ((1.0, True), (2.0, True), (None, False), (nan, True), (-3.5, True),
                                             (1e300, False))], (0.0, None), " ms").html()
    Page(html)
    assert "min -3.5 ms · max 1e+300 ms · last 1e+300 ms" in html
    assert "held to at least 0 ms" in html
    assert html.count("<polyline") == 2
    assert html.count('class="off"') == 2
    assert "nan" not in html
    assert Trend([Point(None, True)]).html() == ""
    assert Trend([]).html() == ""
    assert "<rect" not in Trend([Point(1.0, True)], (5.0, 9.0)).html()
    assert [trend.number(v) for v in (0.0, 1234567.0, 12345.678, 0.00012345, 1e20)] == [
        "0", "1,234,567", "12,346", "0.0001234", "1e+20"]


def test_pages_and_results_are_written_and_nothing_else_is_overwritten(tmp_path: Path) -> None:
    found = windows([event(0), event(1, [("D", 1)]), event(2, detail=None)])
    out = tmp_path / "deep/er"
    reports.check_folder(out)
    assert reports.write_pages(out, pages(found, last=9)) == 4
    reports.check_folder(out)
    index = (out / "index.html").read_text()
    assert all((out / href).is_file() for href in links(Page(index)))
    (tmp_path / "index.html").write_text("<title>mine</title>")
    with pytest.raises(UserError, match="no page of"):
        reports.check_folder(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        reports.check_folder(tmp_path / "index.html")
    assert reports.write_results(tmp_path / "gx", found) == 2
    (one,) = (tmp_path / "gx/trip/trips-hourly/20130208T180000.000000Z").iterdir()
    assert json.loads(one.read_text())["meta"]["run_id"] == {"run_name": "trips-hourly",
                                                             "run_time": "2013-02-08T18:00:00+00:00"}
    evil = Window(event(3, detail=json.dumps({"results": [], "suite_name": "../../x", "meta": None})))
    assert reports.write_results(tmp_path / "evil", [evil]) == 1
    assert [p.relative_to(tmp_path).parts[:2] for p in tmp_path.rglob("*-0-3-*.json")] == [("evil", "__.._x")]


def test_one_json_object_a_window() -> None:
    plain, bare = (Window(event(0, detail=d) if d else event(0)).as_json() for d in (None, "[]"))
    assert plain["detail"]["statistics"]["evaluated_expectations"] == 4
    assert (plain["window_start"], plain["rows"], bare["detail"]) == ("2013-02-08T17:00:00+00:00", 2, "[]")


def test_what_the_processor_says_becomes_pages(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/trip.expectations.json").write_text(json.dumps({"name": "trip", "expectations": SUITE}))
    config = {"suite": "trip", "window": {"records": 3}, "checks": [{"unique": ["plane"], "id": "once"}]}
    step = ValidateWindow(ValidateWindowConfig.model_validate(config), project=tmp_path)
    step.outputs(SCHEMA)
    driven = Driven(step, SCHEMA)
    planes = ["N1", "N2", "N3", "N4", "D5", "D5", "N6"]
    driven.feed(records([(0, {"plane": plane, "miles": 150}) for plane in planes]))
    events = [Verdict.from_record(dict(row)) for row, *_ in driven.got["verdict"]]
    first, second = windows(events)
    assert (first.unreadable, first.failed, second.failed) == (None, [], ["american", "once"])
    page = next(p for name, p in site(events).items() if second.name in name)
    assert page.row("american")[4:6] == ["fails", "2 unexpected (66.7 %)"]
    assert page.row("american")[6] == "min 0 % · max 66.67 % · last 66.67 %held to 0 %"
    assert page.row("once")[5] == "1 record repeats another one's plane"
    assert ["D5: 2 times"] in page.rows
    assert page.rows.index(["plane", "times"]) == page.rows.index(["“D5”", "2"]) - 1
