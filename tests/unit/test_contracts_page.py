"""The HTML page of verdicts: what it says, that it needs nothing else, that no value becomes markup.

The results are Great Expectations' own, as 1.24.1 gives them with format COMPLETE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest

from headrace.contractctl.judged import Example, judged, percent, shown
from headrace.contractctl.page import UNREAD_MAX, VALUES_MAX, Facts, render
from headrace.contracts import Expectation
from headrace.contracts.verdict import Verdict
from headrace.ingest import Bad

pytestmark = pytest.mark.unit

HOSTILE = "</code></td><script src=\"https://evil.example/x.js\">alert('&amp;')</script><img src=x onerror=\"x()\">"
VOID = {"meta", "br"}
Judgement = tuple[Expectation, Verdict]


class Page(HTMLParser):
    """A page read back: its elements, its text, and whether every element that is opened is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            assert not re.search(r"url\(|@import|expression\(", data)
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        """The row whose first cell begins so."""
        return next(row for row in self.rows if row[0].startswith(first))


def expectation(id_: str, type_: str, severity: str = "critical", *, notes: Any = None, **kwargs: Any) -> Expectation:
    return Expectation(id_, f"expect_{type_}", kwargs, severity, "s.json", {} if notes is None else {"notes": notes})


def failures(*rows: tuple[int, str, str]) -> pa.Table:
    """Of (row, expectation_id, observed)."""
    names = ("row", "expectation_id", "expectation_type", "column", "severity", "observed")
    cells = [(row, id_, "t", "c", "critical", observed) for row, id_, observed in rows]
    columns = list(zip(*cells, strict=True)) or [()] * len(names)
    return pa.table([pa.array(c, pa.int64() if at == 0 else pa.string()) for at, c in enumerate(columns)], names=names)


REGEX = {"element_count": 4, "missing_count": 1, "missing_percent": 25.0,
         "partial_unexpected_counts": [{"count": 1, "value": "<b>X</b>"}], "partial_unexpected_index_list": [2],
         "partial_unexpected_list": ["<b>X</b>"], "unexpected_count": 1, "unexpected_index_list": [2],
         "unexpected_index_query": "df.filter(items=[2], axis=0)", "unexpected_list": ["<b>X</b>"],
         "unexpected_percent": 33.33333333333333, "unexpected_percent_nonmissing": 33.33333333333333,
         "unexpected_percent_total": 25.0}
NULLS = {"element_count": 4, "partial_unexpected_counts": [{"count": 1, "value": None}],
         "partial_unexpected_index_list": [1], "partial_unexpected_list": [None], "unexpected_count": 1,
         "unexpected_index_list": [1], "unexpected_index_query": "df.filter(items=[1], axis=0)",
         "unexpected_list": [None], "unexpected_percent": 25.0}
SUM_HOLDS = {"element_count": 4, "missing_count": 0, "missing_percent": 0.0, "partial_unexpected_counts": [],
             "partial_unexpected_index_list": [], "partial_unexpected_list": [], "unexpected_count": 0,
             "unexpected_index_list": [], "unexpected_list": [], "unexpected_percent": 0.0,
             "unexpected_percent_nonmissing": 0.0, "unexpected_percent_total": 0.0}
DISTINCT = {"observed_value": None, "partial_unexpected_list": ["<b>X</b>", "N3"], "unexpected_count": 2}
QUANTILES = {"details": {"success_details": [False]}, "observed_value": {"quantiles": [0.5], "values": [3]}}
COLUMNS = {"details": {"mismatched": {"missing": ["z"], "unexpected": ["b", "tail"]}},
           "observed_value": ["a", "b", "tail"]}

VERDICTS: list[Judgement] = [
    (expectation("american", "column_values_to_match_regex", column="tail", regex="^N[0-9]", mostly=0.5,
                 notes="They begin with N."), Verdict(True, REGEX)),
    (expectation("given", "column_values_to_not_be_null", column="tail"), Verdict(False, NULLS)),
    (expectation("mean", "column_mean_to_be_between", "warning", column="a", min_value=3),
     Verdict(False, {"observed_value": 2.5})),
    (expectation("sum", "multicolumn_sum_to_equal", column_list=["a", "b"], sum_total=5), Verdict(True, SUM_HOLDS)),
    (expectation("known", "column_distinct_values_to_be_in_set", "info", column="tail", value_set=["N1"]),
     Verdict(False, DISTINCT)),
    (expectation("median", "column_quantile_values_to_be_between", column="a"), Verdict(False, QUANTILES)),
    (expectation("columns", "table_columns_to_match_set", column_set=["a", "z"]), Verdict(False, COLUMNS)),
    (expectation("range", "column_values_to_be_between", column="tail", min_value=3),
     Verdict(False, {}, "'>=' not supported between instances of 'str' and 'int'"))]
FACTS = Facts("tails", "tails.csv", 4, False, "6 of 8 expectations fail", unit="line", at="2013-02-08 17:30 UTC")
BROKEN = failures((4, "american", "“<b>X</b>”"), (3, "given", "null"))


def test_the_page_says_every_verdict_with_what_was_found() -> None:
    page = Page(render(FACTS, VERDICTS, BROKEN))
    assert "tails fails on tails.csv" in page.text
    assert "4 lines judged on 2013-02-08 17:30 UTC" in page.text
    assert [page.row(e.id)[3:] for e, _ in VERDICTS] == [
        ["critical", "holds", "1 unexpected (33.3 %), mostly 0.5"],
        ["critical", "fails", "1 unexpected (25 %)"],
        ["warning", "fails", "observed 2.5"],
        ["critical", "holds", "0 unexpected"],
        ["info", "fails", "2 unexpected"],
        ["critical", "fails", "observed {\"quantiles\": [0.5], \"values\": [3]}"],
        ["critical", "fails", "observed [\"a\", \"b\", \"tail\"]"],
        ["critical", "cannot be judged", "'>=' not supported between instances of 'str' and 'int'"]]
    american = page.row("american")
    assert american[:3] == ["americanexpect_column_values_to_match_regexThey begin with N.", "tail",
                            "regex = ^N[0-9]mostly = 0.5"]
    assert '"missing": [\n      "z"\n    ]' in page.text


def test_it_shows_the_values_that_break_an_expectation_and_their_rows() -> None:
    rows = [*((n, "given", "“often”") for n in range(100, 1200)), (5, "given", "null"), (1_234_567, "given", "“last”")]
    page = Page(render(FACTS, VERDICTS, failures(*rows)))
    assert [r for r in page.rows if r[0] in ("“often”", "null", "“last”")] == [
        ["“often”", "1,100", "100, 101, 102, 103, 104, 105, 106, 107, 108, 109, …"], ["null", "1", "5"],
        ["“last”", "1", "1234567"]]
    assert ["tail", "times", "lines"] in page.rows
    assert ["“N3”"] in page.rows  # known by value alone: it is the distinct values that are judged


def test_there_is_a_limit_to_the_values_that_are_shown() -> None:
    page = Page(render(FACTS, VERDICTS, failures(*((n, "given", f"“v{n}”") for n in range(VALUES_MAX + 5)))))
    assert sum(row[0].startswith("“v") for row in page.rows) == VALUES_MAX
    assert f"No more than {VALUES_MAX} values are shown." in page.text


def test_what_could_not_be_read_has_its_own_section() -> None:
    why = "x: “a” is not an int", "not UTF-8: byte 3"
    unread = [Bad(n, b"a,\xff<i>", why) for n in range(1000, 1000 + UNREAD_MAX + 9)]
    page = Page(render(FACTS, VERDICTS, BROKEN, unread, 1_234))
    assert "1,234 lines that could not be read" in page.text
    assert page.row("1007") == ["1007", "x: “a” is not an int; not UTF-8: byte 3", "a,�<i>"]
    assert sum(row[-1] == "a,�<i>" for row in page.rows) == UNREAD_MAX
    assert "could not be read" not in Page(render(FACTS, VERDICTS, BROKEN)).text


def test_it_needs_nothing_else_and_its_own_browser_would_load_nothing() -> None:
    page = Page(render(FACTS, VERDICTS, BROKEN))
    assert {tag for tag, _ in page.elements} <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "span", "table", "tr", "th", "td",
        "code", "small", "br", "pre"}
    assert {name for _, attributes in page.elements for name in attributes} <= {
        "lang", "charset", "name", "content", "http-equiv", "class"}
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def hostile(result: Mapping[str, Any], raised: str | None = None) -> list[Judgement]:
    e = Expectation(f"id{HOSTILE}", f"expect_{HOSTILE}", {"column": f"column{HOSTILE}", f"key{HOSTILE}": HOSTILE},
                    "critical", f"s{HOSTILE}", {"notes": f"notes{HOSTILE}"})
    return [(e, Verdict(False, result, raised))]


@pytest.mark.parametrize("verdicts", [
    hostile({"unexpected_count": 1, "unexpected_percent": 1.0, "details": {HOSTILE: [HOSTILE]}}),
    hostile({"observed_value": f"observed{HOSTILE}"}), hostile({"observed_value": {HOSTILE: HOSTILE}}),
    hostile({"unexpected_count": 1, "partial_unexpected_list": [HOSTILE]}), hostile({}, f"raised{HOSTILE}")])
def test_no_value_becomes_markup(verdicts: list[Judgement]) -> None:
    facts = Facts(f"suite{HOSTILE}", f"file{HOSTILE}", 1, False, f"because{HOSTILE}", at=f"at{HOSTILE}")
    plain = Page(render(FACTS, [(expectation("a", "b", column="c", d=1, notes="n"), verdicts[0][1])],
                        failures((1, "a", "x")), [Bad(1, b"raw", ("why",))], 1))
    html = render(facts, verdicts, failures((1, f"id{HOSTILE}", f"value{HOSTILE}")),
                  [Bad(1, f"raw{HOSTILE}".encode(), (f"why{HOSTILE}",))], 1)
    page = Page(html)
    assert page.elements == plain.elements
    for place in ("id", "expect_", "column", "notes", "suite", "file", "because", "why", "at"):
        assert f"{place}{HOSTILE[:60]}" in page.text, place
    assert "<script" not in html


def test_control_characters_and_turned_text_are_shown_not_obeyed() -> None:
    html = render(FACTS, VERDICTS, failures((1, "given", "a\0b\x1b[31mc\u202edc\n")))
    assert Page(html).row("a␀")[0] == "a␀b␛[31mc�dc␊"
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


def test_a_suite_without_expectations_or_rows_is_still_a_page() -> None:
    page = Page(render(Facts("s", "empty.csv", 0, True, "0 expectations, none fails"), [], failures()))
    assert "s holds on empty.csv" in page.text
    assert "0 rows judged" in page.text


def test_examples_are_the_most_frequent_values_first_with_their_first_rows() -> None:
    told = failures((9, "given", "“b”"), (1, "given", "“a”"), (4, "given", "“c”"), (5, "given", "“c”"),
                    (7, "given", "“c”"), (2, "american", "“z”"))
    american, given, *others = judged(VERDICTS, told, values_max=2, rows_max=2)
    assert given.examples == (Example("“c”", 3, (4, 5)), Example("“a”", 1, (1,)))
    assert american.examples == (Example("“z”", 1, (2,)),)
    assert [one.examples for one in others] == [(), (), (Example("“<b>X</b>”"), Example("“N3”")), (), (), ()]


@pytest.mark.parametrize(("share", "told"), [
    (33.33333333333333, "33.3 %"), (100.0, "100 %"), (99.99999, "over 99.9 %"), (0.5, "0.5 %"), (1e-9, "under 0.001 %"),
    (99.5, "99.5 %")])
def test_a_percentage_is_never_rounded_to_all_or_nothing(share: float, told: str) -> None:
    assert percent(share) == told


@pytest.mark.parametrize(("value", "told"), [
    ("x", "“x”"), ("x" * 101, f"“{'x' * 100}…”"), (None, "null"), (float("nan"), "null"), (2013, "2013"),
    (True, "True"), (0.1, "0.1"), ([1, "ä"], '[1, "ä"]'), ({"a": None}, '{"a": null}'), (2**70, str(2**70))])
def test_values_are_shown_as_they_are(value: Any, told: str) -> None:
    assert shown(value) == told
