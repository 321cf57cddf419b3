"""`headrace new`: what it makes lints and passes its own tests, whatever the CSV; and its expectations hold of it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace import codec, contracts, flowtest, scaffold
from headrace import lint as linting
from headrace.cli import build
from headrace.connect import config
from headrace.errors import UserError
from headrace.scaffold import infer

pytestmark = pytest.mark.unit
ODD = """\
code,n,ratio,share,yes,day,seen,zoned,kind,empty,text
007,1,1.5,0.5,true,2013-01-01,2013-01-01 05:00:00,2013-01-01T05:00:00Z,a,,"x, ""y"" {z}: é"
011,-2,nan,NA,FALSE,2013-01-02,2013-01-01 05:00:00.5,2013-01-01T05:00:00+02:00,b,,#
012,3,2,-3.25,true,,2013-01-01 05:00:00,2013-01-01T05:00:00Z,a,,NA
013,4,7,nan,true,2013-01-02,2013-01-01 05:00:00,2013-01-01T05:00:00Z,a,,t
014,5,7,inf,true,2013-01-02,2013-01-01 05:00:00,2013-01-01T05:00:00Z,a,,t
"""


def check(folder: Path, name: str) -> None:
    """That the project lints without error, passes its tests, and that its connector reads every record of the CSV."""
    wrong = [f for f in linting.lint(linting.files([], folder), folder) if f.severity == "error"]
    assert wrong == []
    results = flowtest.run(folder / "flows" / f"{name}.yaml")
    assert [r.problems for r in results] == [()] * len(results)
    assert results
    declared = config.load(folder / "connectors" / f"{name}.json", folder)
    assert declared.spec is not None
    source = declared.spec.cls(declared.spec.config, project=folder)
    source.schema = codec.load(folder / "schemas" / f"{name}.avsc")
    source.open(lambda partition: None)
    pulled = source.pull(10_000)
    assert pulled is not None
    assert list(pulled.failures) == []
    [records] = pulled.records
    rows = records.rows()
    assert rows.num_rows > 0
    suite = contracts.load(folder / "schemas" / f"{name}.expectations.json")
    assert contracts.compile_suite(suite, rows.schema).check(rows).row_mask.false_count == 0
    source.close()


def test_without_data_it_is_an_example_that_works(tmp_path: Path) -> None:
    made = scaffold.make(tmp_path / "p", None, None)
    check(tmp_path / "p", "readings")
    assert {str(p.relative_to(tmp_path / "p")) for p in made} == {
        "schemas/readings.avsc", "schemas/readings.expectations.json", "flows/readings.yaml",
        "connectors/readings.json", "headrace.toml", "README.md", ".gitignore", "data/readings.csv"}
    written = json.loads((tmp_path / "p" / "connectors" / "readings.json").read_text())
    assert (written["connector.class"], written["file"], written["topic"]) == ("file", "data/readings.csv", "readings")


def test_types_are_those_of_every_value(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text(ODD)
    scaffold.make(tmp_path / "p", tmp_path / "odd.csv", None)
    check(tmp_path / "p", "odd")
    schema = codec.load(tmp_path / "p" / "schemas" / "odd.avsc").arrow
    assert {f.name: f.type for f in schema} == {
        "code": pa.string(), "n": pa.int64(), "ratio": pa.float64(), "share": pa.float64(), "yes": pa.bool_(),
        "day": pa.date32(), "seen": pa.timestamp("ms"), "zoned": pa.timestamp("ms", "UTC"), "kind": pa.string(),
        "empty": pa.string(), "text": pa.string()}
    assert all(f.nullable for f in schema)


def test_what_the_data_show_is_expected_of_them(tmp_path: Path) -> None:
    rows = "".join(f"{'JFK' if i % 2 else 'EWR'},{i},{2013}\n" for i in range(40))
    (tmp_path / "f.csv").write_text("origin,delay,year\n" + rows + ",39,2013\n")
    shape = infer.Shape("f", infer.read(tmp_path / "f.csv"))
    assert {e["id"]: {k: v for k, v in e["kwargs"].items() if k != "column"} for e in shape.expectations} == {
        "origin_in_set": {"value_set": ["EWR", "JFK"]}, "delay_not_null": {},
        "delay_between": {"min_value": 0, "max_value": 39}, "year_not_null": {},
        "year_between": {"min_value": 2000, "max_value": 2100}}
    report = contracts.compile_suite(contracts.parse(json.loads(shape.suite), "f"), shape.table.schema).check(
        shape.table.combine_chunks().to_batches()[0])
    assert report.row_mask.false_count == 0


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300).filter(
    lambda v: v == 0 or abs(v) > 1e-300))
def test_bounds_are_never_inside_the_data(value: float) -> None:
    assert infer.outward(value, -1, False) <= value <= infer.outward(value, 1, False)


@given(st.integers(-2**63, 2**63 - 1))
def test_bounds_of_whole_numbers_are_whole_and_outside(value: int) -> None:
    low, high = infer.outward(value, -1, True), infer.outward(value, 1, True)
    assert isinstance(low, int)
    assert isinstance(high, int)
    assert low <= value <= high


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README\.md"):
        scaffold.make(tmp_path, None, None)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"], "and nothing is written half"
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(("text", "said"), [
    ("", "cannot be read as CSV"), ("a,b\n", "has no records"), ("my column,b\n1,2\n", "'my column'"),
    ("a,b\n1,2,3,4\n", "cannot be read as CSV"),
])
def test_a_csv_that_cannot_be_a_topic_says_why(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        scaffold.make(tmp_path / "p", tmp_path / "x.csv", None)
    assert not (tmp_path / "p").exists()


def test_names_come_from_the_file_or_the_user(tmp_path: Path) -> None:
    assert [scaffold._name(n) for n in ("My Flights-2013", "2013", "…")] == ["my_flights_2013", "t_2013", "readings"]
    with pytest.raises(UserError, match="no file"):
        scaffold.make(tmp_path, tmp_path / "absent.csv", None)
    with pytest.raises(UserError, match="cannot name"):
        scaffold.make(tmp_path, None, "my-flights")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trips.csv").write_text("who,km\na,1\nb,2\n")
    done = CliRunner().invoke(build(), ["new", "p", "--from", "trips.csv", "--name", "trip"])
    assert done.exit_code == 0, done.output
    assert "p/flows/trip.yaml" in done.stdout
    monkeypatch.chdir(tmp_path / "p")
    assert CliRunner().invoke(build(), ["lint"]).exit_code == 0
    tested = CliRunner().invoke(build(), ["test", "--json"])
    assert (tested.exit_code, json.loads(tested.stdout)["failed"]) == (0, 0)
