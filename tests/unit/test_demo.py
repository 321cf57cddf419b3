"""The demo without a broker: its counting must see what is wrong, its pictures must be whole, its copies renamed."""

from __future__ import annotations

import struct
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from headrace.batch import SOURCE_HEADER
from headrace.demo import charts, verify
from headrace.demo.board import Board, Sample, moving, per_slice, steady_rate
from headrace.demo.data import Day, flights
from headrace.demo.folder import SHARED, forget_older, new_run
from headrace.errors import UserError
from headrace.settings import Settings

pytestmark = pytest.mark.unit


def place(partition: int, offset: int, topic: str = "t") -> dict[str, bytes]:
    return {SOURCE_HEADER: struct.pack(">iq", partition, offset) + topic.encode()}


def test_mark_counts_every_position() -> None:
    seen = {0: np.zeros(4, dtype=np.int64), 1: np.zeros(2, dtype=np.int64)}
    strangers = verify._mark(seen, [place(0, 0), place(0, 2), place(0, 2), place(1, 1)], "t")
    assert strangers == 0
    assert seen[0].tolist() == [1, 0, 2, 0]
    assert seen[1].tolist() == [0, 1]


@pytest.mark.parametrize("stranger", [place(0, 4), place(0, -1), place(2, 0), place(0, 0, "u"), place(0, 0, "tt"), {}])
def test_mark_finds_strangers(stranger: dict[str, bytes]) -> None:
    seen = {0: np.zeros(4, dtype=np.int64)}
    assert verify._mark(seen, [place(0, 3), stranger], "t") == 1
    assert seen[0].tolist() == [0, 0, 0, 1]


def test_reasons_are_counted_by_id() -> None:
    held = [{"headrace.step": b"check", "headrace.reasons": b'["a: 1: 2", "b: x"]'},
            {"headrace.step": b"check", "headrace.reasons": b'["a: 1: 2"]'},
            {"headrace.step": b"source", "headrace.reasons": b'["corrupt: no"]'}]
    assert verify.reasons_of(held) == {"a": 2, "b": 1}
    tally = verify.Tally(records_in=3)
    verify._reasons(tally, held)
    assert (tally.quarantined, tally.rejected, tally.by_expectation) == (2, 1, {"a": 2, "b": 1})
    assert tally.whole


@pytest.mark.parametrize("wrong", [{"lost": 1}, {"doubled": 1}, {"strangers": 1}, {"valid": 4}, {"records_in": 4}])
def test_a_tally_is_whole_only_when_all_is_right(wrong: dict[str, int]) -> None:
    assert verify.Tally(records_in=3, valid=3).whole
    assert not verify.Tally(**{"records_in": 3, "valid": 3, **wrong}).whole


def samples(flow: str, *points: tuple[float, int]) -> list[Sample]:
    end = points[-1][1]
    return [Sample(at_s, "speed", flow, done, end - done) for at_s, done in points]


def test_steady_rate_leaves_out_the_start_of_the_processes() -> None:
    one = samples("a", (0, 0), (5, 0), (6, 500), (7, 1000), (8, 1000))
    other = samples("b", (0, 0), (5, 0), (6, 0), (7, 700), (9, 1400))
    assert steady_rate(one) == 500
    assert steady_rate([*one, *other]) == 600, "2,400 records from second 5 to second 9"
    assert steady_rate([]) == steady_rate(samples("a", (0, 0), (1, 0))) == 0


def test_per_slice_counts_every_record_once() -> None:
    series = samples("a", (3, 0), (3.3, 17), (4.9, 17), (5.1, 400), (7, 1000))
    for slices in (1, 3, 14, 60):
        rates = per_slice(series, slices)
        assert len(rates) == slices
        assert sum(rate for _, rate in rates) * 4 / slices == pytest.approx(1000)
    assert per_slice(series[:1], 5) == []


def test_moving_leaves_out_the_waiting() -> None:
    series = samples("a", (0, 0), (5, 0), (5.5, 0), (6, 500), (7, 1000), (8, 1000))
    assert [s.at_s for s in moving(series)] == [5, 5.5, 6, 7]


@pytest.mark.parametrize(("top", "ticks"), [(0, [0, 1]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.57, [0, 0.2, 0.4, 0.6]),
                                            (88_000, [0, 20_000, 40_000, 60_000, 80_000, 100_000])])
def test_ticks_are_round(top: float, ticks: list[float]) -> None:
    assert charts.nice_ticks(top) == pytest.approx(ticks)


def test_charts_are_well_formed_and_have_all_bars() -> None:
    bars = [charts.Bar(f"<{n}>", n / 10, "one", "a & b") for n in range(7)]
    drawn = [charts.bars("t", bars), charts.columns('"t"', bars, limit=0.35, limit_label="limit", names=[(0, "Jan")],
                                                    marks=[(3, "alert")]),
             charts.lines("t", [charts.Line("a", "one", [(0, 0), (1, 5)]), charts.Line("b", "two", [])], x_label="s",
                          marks=[charts.Mark(0.5, "kill -9")])]
    for svg in drawn:
        assert "http" not in svg
        ElementTree.fromstring(svg)
    assert [svg.count(' bar"') for svg in drawn] == [7, 7, 2]
    assert "kill -9" in drawn[2]


def test_the_picture_shows_what_is_on_the_board(tmp_path: Path) -> None:
    from headrace.demo.view import save_svg

    board = Board("ab12", 336_776)
    board.enter("kill")
    board.samples = [Sample(at_s, "kill", "arrivals", n, 1000 - n) for at_s, n in ((1, 0), (2, 400), (3, 1000))]
    board.held = {"arrivals": verify.reasons_of([{"headrace.step": b"s", "headrace.reasons": b'["landed: no"]'}])}
    board.days = [Day(date(2013, 2, 8), 930, 472)]
    board.say("kill -9 4711")
    save_svg(board, tmp_path / "p.svg")
    svg = (tmp_path / "p.svg").read_text()
    ElementTree.fromstring(svg)
    for word in ("336,776", "landed", "51%", "4711"):
        assert word in svg
    assert "url(" not in svg.replace("url(#", ""), "the picture needs something from elsewhere"


def test_flights_of_a_few_days() -> None:
    some = flights(date(2013, 2, 8), date(2013, 2, 9))
    assert [(d.flights, d.cancelled) for d in some.days] == [(930, 472), (684, 393)]
    assert some.of_days(date(2013, 2, 9), date(2013, 3, 1)) == slice(930, 1614)
    assert some.departures["flight_id"].to_pylist() == some.arrivals["flight_id"].to_pylist()
    assert some.arrivals["dep_time"].null_count == 472 + 393


def test_a_run_has_topics_and_groups_of_its_own(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "nowhere:1", None)
    with new_run(tmp_path) as run:
        staged = run.stage("arrivals", "story", source=".x", sinks=".y", keep=SHARED)
        assert staged.source == "flights.arrivals.x"
        assert sorted(staged.outputs) == ["flights.late.y", "flights.punctual.y"]
        assert staged.quarantine == "flights.arrivals.quarantine.y"
        assert staged.alerts == ["headrace.alerts"]
        assert run.name in staged.group
        run.remember([staged], settings)
        assert "headrace.alerts" not in (run.folder / "run.json").read_text(), "it would be deleted by the next run"
        with pytest.raises(UserError, match="another demo"), new_run(tmp_path):
            pass
        assert forget_older(tmp_path, settings, run) == 0
    with new_run(tmp_path) as another:
        assert another.name != run.name


def test_a_project_of_the_users_own_comes_first(tmp_path: Path) -> None:
    from headrace.resources import content

    (tmp_path / "flows").mkdir()
    (tmp_path / "schemas").mkdir()
    for name in ("departures", "arrivals"):
        text = content(f"flows/{name}.yaml").read_text()
        (tmp_path / "flows" / f"{name}.yaml").write_text(text.replace("owner: flight-ops", "owner: me"))
    with new_run(tmp_path) as run:
        assert "owner: me" in (run.folder / "flows" / "departures.yaml").read_text()
