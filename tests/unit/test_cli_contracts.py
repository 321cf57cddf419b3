"""`headrace contracts explain` and `check`: files of four formats judged by a suite; what is said when one is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from headrace import codec
from headrace.cli import build, contracts
from headrace.codec.container import write_container
from headrace.contractctl.files import opened, whole
from headrace.contractctl.places import parameters
from headrace.contracts import load
from headrace.errors import HeadraceError, UserError

pytestmark = pytest.mark.unit

SCHEMA = {"type": "record", "name": "Trip", "namespace": "t", "fields": [
    {"name": "plane", "type": ["null", "string"], "default": None}, {"name": "miles", "type": "int"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}
GIVEN = {"id": "plane_given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "plane"}}
RANGE = {"id": "miles_plausible", "type": "expect_column_values_to_be_between",
         "kwargs": {"column": "miles", "min_value": 50, "max_value": 5000}}
FORM = {"id": "plane_american", "type": "expect_column_values_to_match_regex", "severity": "warning",
        "kwargs": {"column": "plane", "regex": "^N[0-9]"}}
DAY = "2013-02-08T17:30:00Z"
LINES = ["plane,miles,at", f"N1,100,{DAY}", f",100,{DAY}", f"N2,x,{DAY}", f"[b]X\x1b[/b],20,{DAY}", f"N[9],300,{DAY}",
         f"N3,9000,{DAY}"]
"""Of its 6 records one cannot be read; line 3 has no plane, lines 5 and 7 strange miles, 5 and 6 strange planes."""


class Shop:
    """A project with a schema, a suite of its name, and a file of records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "schemas").mkdir()
        (folder / "flows").mkdir()
        self.schema = folder / "schemas" / "trip.avsc"
        self.schema.write_text(json.dumps(SCHEMA))
        self.suite(GIVEN, RANGE, FORM)
        self.file = self.csv(*LINES)

    def suite(self, *expectations: dict[str, Any], name: str = "trip") -> Path:
        file = self.folder / "schemas" / f"{name}.expectations.json"
        file.write_text(json.dumps({"name": name, "expectations": expectations}))
        return file

    def csv(self, *lines: str, name: str = "trips.csv") -> Path:
        (self.folder / name).write_text("\n".join(lines) + "\n")
        return self.folder / name

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(build(), ["contracts", *words], env={"COLUMNS": "200"})

    def check(self, *words: str, code: int) -> Result:
        result = self.run("check", *words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result

    def wrong(self, *words: str) -> str:
        """What it says when what was written is wrong, which is exit code 2."""
        error = self.run(*words).exception
        assert isinstance(error, HeadraceError), error
        assert error.exit_code == 2
        return str(error)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path)


# Files as one batch


def read(path: Path, schema: codec.AvroSchema | None = None, **how: Any) -> Any:
    with opened(path, schema) as source:
        return whole(source, **how)


def test_text_is_read_with_the_lines_of_its_rows_and_of_what_is_no_row(shop: Shop) -> None:
    shape = codec.load(shop.schema)
    got = read(shop.file, shape)
    assert got.rows.column("miles").to_pylist() == [100, 100, 20, 300, 9000]
    assert got.at.tolist() == [2, 3, 5, 6, 7]
    assert [(bad.at, bad.reasons) for bad in got.unread] == [(4, ("miles: “x” is not an int",))]
    assert got.unread_count == 1
    first = read(shop.file, shape, rows_max=3)
    assert (first.at.tolist(), first.unread_count) == ([2, 3], 1)
    assert read(shop.csv("plane,miles,at"), shape).rows.num_rows == 0


def test_pieces_are_put_together(shop: Shop) -> None:
    shape = codec.load(shop.schema)
    many = shop.csv(LINES[0], *(f"N{n},{n if n % 1000 else 'x'},{DAY}" for n in range(120_001)))
    told: list[tuple[float, int]] = []
    got = read(many, shape, progress=lambda share, n: told.append((share, n)))
    assert (got.rows.num_rows, got.unread_count) == (119_880, 121)
    assert (got.rows.column("miles").to_numpy() + 2 == got.at).all()
    assert len(told) > 2
    assert told[-1] == (1.0, 120_001)
    limited = read(many, shape, rows_max=70_000)
    assert limited.rows.num_rows + limited.unread_count == 70_000


def test_only_so_much_of_what_cannot_be_read_is_kept(shop: Shop) -> None:
    got = read(shop.csv(LINES[0], *(["N1,x,y"] * 70_000)), codec.load(shop.schema))
    assert (got.rows.num_rows, len(got.unread), got.unread_count) == (0, 1_000, 70_000)


def test_avro_and_parquet_are_read_in_their_own_types(shop: Shop) -> None:
    shape = codec.load(shop.schema)
    rows = read(shop.file, shape).rows
    container = shop.folder / "trips.avro"
    with container.open("wb") as stream:
        write_container(stream, shape, rows)
    again = read(container)
    assert again.rows.equals(rows)
    assert again.at.tolist() == [1, 2, 3, 4, 5]

    table = pa.table({"big": pa.array([2**64 - 1, None], pa.uint64()), "small": pa.array([1, 2], pa.int8()),
                      "a name": pa.array(["x", "y"]).dictionary_encode(), "id": pa.array([7, 8])})
    pq.write_table(table.replace_schema_metadata(
        {"pandas": json.dumps({"index_columns": ["id"], "columns": [], "column_indexes": []})}), "own.parquet")
    own = read(Path("own.parquet"))
    assert own.rows.schema.types == [pa.uint64(), pa.int8(), pa.string(), pa.int64()]
    assert own.rows.to_pandas().columns.tolist() == ["big", "small", "a name", "id"]  # no index out of pandas' notes
    assert own.rows.to_pylist()[0] == {"big": 2**64 - 1, "small": 1, "a name": "x", "id": 7}
    assert read(Path("own.parquet"), rows_max=1).at.tolist() == [1]


def test_parquet_comes_in_row_groups_and_stops_at_the_rows_wanted(shop: Shop) -> None:
    pq.write_table(pa.table({"n": range(130_000)}), "n.parquet", row_group_size=30_000)
    for wanted in (1, 30_001, 99_999, 130_000, None):
        got = read(Path("n.parquet"), rows_max=wanted)
        assert got.rows.num_rows == (wanted or 130_000)
        assert (got.rows.column("n").to_numpy() + 1 == got.at).all()
    with opened(Path("n.parquet"), None) as source:
        pieces = [piece for n in range(1, 600) if (piece := source.reader.read(n)) is not None]
    assert all(len(piece) <= n for n, piece in enumerate(pieces, 1))
    assert [n for piece in pieces for n in piece.at.tolist()] == list(range(1, 130_001))


@pytest.mark.parametrize("kind", ["parquet", "avro"])
def test_a_file_that_is_damaged_is_an_error_of_the_users(shop: Shop, kind: str) -> None:
    broken = shop.folder / f"broken.{kind}"
    broken.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=f"broken.{kind}"):
        read(broken)
    if kind == "parquet":
        pq.write_table(pa.table({"n": range(100_000)}), broken, compression="none", use_dictionary=False)
        content = bytearray(broken.read_bytes())
        content[4:400] = bytes(396)
        broken.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.parquet: cannot be read"):
            read(broken)


def test_a_column_twice_is_refused(shop: Shop) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"]), "twice.parquet")
    with pytest.raises(UserError, match=r"twice\.parquet: column n twice"):
        read(Path("twice.parquet"))


# What is written wrong


def test_a_suite_or_schema_that_is_not_there_is_named_with_those_that_are(shop: Shop) -> None:
    assert "schemas/trips.expectations.json: there is no such suite" in shop.wrong("explain", "trips")
    assert "beside it there are trip" in shop.wrong("check", "trips.csv", "--suite", "trips")
    assert "there is no schema “tripp”" in shop.wrong("check", "trips.csv", "--suite", "trip", "--schema", "tripp")
    assert "no.avsc: cannot be read" in shop.wrong("explain", "trip", "--schema", "no.avsc")


def test_text_wants_a_schema_and_the_suites_own_name_finds_one(shop: Shop) -> None:
    shop.suite(GIVEN, name="other")
    told = shop.wrong("check", "trips.csv", "--suite", "other")
    assert "trips.csv: CSV does not say its types" in told
    assert "--schema NAME" in told
    assert "there is no schema of its name beside it" in shop.wrong("explain", "other")


def test_what_cannot_be_judged_is_told_before_the_file_is_read(shop: Shop) -> None:
    shop.suite({**GIVEN, "kwargs": {"column": "plain"}})
    told = shop.wrong("check", "trips.csv", "--suite", "trip")
    assert "trip.expectations.json: plane_given (plain): there is no column “plain”" in told
    shop.suite(GIVEN)
    assert "there is no column “miles”" in shop.wrong("check", str(shop.csv("plane,at")), "--suite", "trip")


@pytest.mark.parametrize(("words", "told"), [
    (["none.csv"], "there is no file none.csv"), (["trips.txt"], "what format is “.txt”?"),
    (["trips.csv", "--format", "xml"], "--format xml is not one of csv, jsonl, parquet, avro"),
    (["trips.csv", "--delimiter", "::"], "--delimiter ::: it is one character"),
    (["trips.csv", "--html", "no/such/page.html"], "there is no folder no/such"),
    (["trips.csv", "--param", "low"], "--param low: write NAME=VALUE"),
    (["trips.csv", "--param", "low=1"], "asks for no such parameter")])
def test_an_option_that_is_wrong_is_an_error(shop: Shop, words: Sequence[str], told: str) -> None:
    assert told in shop.wrong("check", *words, "--suite", "trip")


def test_the_process_ends_with_2_and_one_clear_message(shop: Shop) -> None:
    words = [sys.executable, "-m", "headrace", "contracts", "check", "trips.csv", "--suite"]
    ended = subprocess.run([*words, "no"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("headrace: ")
    assert ended.stderr.count("\n") == 2
    assert subprocess.run(words, capture_output=True).returncode == 2


def test_names_are_completed(shop: Shop) -> None:
    shop.suite(GIVEN, name="tripod")
    assert contracts._suites("tri") == ["trip", "tripod"]
    assert contracts._schemas("") == ["trip"]
    assert contracts._schemas("x") == []


# Suite parameters


BOUNDED = {**RANGE, "kwargs": {"column": "miles", "min_value": {"$PARAMETER": "low"},
                               "max_value": {"$PARAMETER": "high"}}}


def test_parameters_are_json_or_text(shop: Shop) -> None:
    suite = load(shop.suite(BOUNDED))
    assert parameters(["low=50", "high=4950.5"], suite) == {"low": 50, "high": 4950.5}
    assert parameters(["low=2013-02-08", "high=NaN"], suite) == {"low": "2013-02-08", "high": "NaN"}
    assert parameters(['low=["a=b"]', "high="], suite) == {"low": ["a=b"], "high": ""}
    with pytest.raises(UserError, match="--param low is given twice"):
        parameters(["low=1", "low=2"], suite)
    with pytest.raises(UserError, match="it asks for high, low"):
        parameters(["lo=1"], suite)


def test_parameters_fill_the_suite(shop: Shop) -> None:
    shop.suite(BOUNDED)
    lines = [line for line in LINES if ",x," not in line]
    file = str(shop.csv(*lines))
    words = (file, "--suite", "trip", "--param", "low=100")
    assert "3 unexpected" in shop.check(*words, "--param", "high=100", code=1).stdout
    assert "2 unexpected" in shop.check(*words, "--param", "high=300", code=1).stdout
    assert "high" in shop.wrong("check", *words)


# Explained


def test_explain_says_how_each_expectation_is_judged_and_why(shop: Shop) -> None:
    shop.suite(GIVEN, {**FORM, "kwargs": {"column": "plane", "regex": "[a-z]", "row_condition": None}})
    told = shop.run("explain", "trip")
    assert told.exit_code == 0
    assert "column_values_to_match_regex" in told.stdout
    machine = [json.loads(line) for line in shop.run("explain", "trip", "--json").stdout.splitlines()]
    assert [(one["id"], one["columns"], one["severity"], one["tier"], one["kind"]) for one in machine] == [
        ("plane_given", ["plane"], "critical", "compiled", "row"),
        ("plane_american", ["plane"], "warning", "compiled", "row")]
    assert all(one["why"] for one in machine)
    by_path = shop.run("explain", "schemas/trip.expectations.json", "--schema", "schemas/trip.avsc", "--json")
    assert by_path.stdout == shop.run("explain", "trip", "--schema", "trip", "--json").stdout
    assert len(by_path.stdout.splitlines()) == 2


# Judged


def test_a_file_is_judged_and_every_line_is_told(shop: Shop) -> None:
    told = shop.check("trips.csv", "--suite", "trip", code=1).stdout
    assert "5 rows of trips.csv" in told
    verdicts = {cells[0]: cells[1:] for line in told.splitlines() if line.startswith("│")
                if (cells := [cell.strip() for cell in line.strip("│").split("│")])[0]}
    assert verdicts == {
        "plane_given": ["critical", "fails", "1 unexpected (20 %)", "null: line 3"],
        "miles_plausible": ["critical", "fails", "2 unexpected (40 %)", "20: line 5"],
        "plane_american": ["warning", "fails", "2 unexpected (50 %)", "“[b]X␛[/b]”: line 5"]}
    assert "“N[9]”: line 6" in told
    assert "1 line could not be read:\n  trips.csv:4: miles: “x” is not an int\n" in told
    assert told.endswith("trip fails: 3 of 3 expectations fail (2 critical, 1 warning); 1 line could not be read\n")


def test_warnings_are_shown_and_fail_nothing(shop: Shop) -> None:
    shop.suite(FORM, {**RANGE, "severity": "info"})
    lines = [line for line in LINES if ",x," not in line]
    told = shop.check(str(shop.csv(*lines)), "--suite", "trip", code=0).stdout
    assert told.count("fails") == 2
    assert "trip holds: 2 of 2 expectations fail (1 warning, 1 info), which is shown and makes no suite fail" in told


def test_a_line_that_cannot_be_read_fails_the_check_by_itself(shop: Shop) -> None:
    shop.suite({**GIVEN, "kwargs": {"column": "at"}})
    assert "trip fails: 1 expectation, none fails; 1 line could not be read" in shop.check(
        "trips.csv", "--suite", "trip", code=1).stdout
    assert "1 expectation, none fails" in shop.check("trips.csv", "--suite", "trip", "--rows", "2", code=0).stdout


def test_the_first_rows_alone_can_be_judged(shop: Shop) -> None:
    assert "1 row of trips.csv" in shop.check("trips.csv", "--suite", "trip", "--rows", "1", code=0).stdout
    assert "null: line 3" in shop.check("trips.csv", "--suite", "trip", "--rows", "2", code=1).stdout


def as_gx(result: Result) -> Any:
    return json.loads(result.stdout)


def test_the_four_formats_have_the_same_verdicts(shop: Shop) -> None:
    shape = codec.load(shop.schema)
    rows = read(shop.file, shape).rows
    good = [json.dumps({**row, "at": DAY}) for row in rows.to_pylist()]
    files = [str(shop.csv(*(line for line in LINES if ",x," not in line))), str(shop.csv(*good, name="trips.jsonl")),
             "trips.parquet", "trips.avro"]
    pq.write_table(pa.Table.from_batches([rows]), files[2])
    with open(files[3], "wb") as stream:
        write_container(stream, shape, rows)
    told = [as_gx(shop.check(file, "--suite", "trip", "--json", code=1)) for file in files]
    told += [as_gx(shop.check(file, "--suite", "trip", "--schema", "trip", "--json", code=1)) for file in files]
    results = [[(r["expectation_config"]["meta"]["headrace_id"], r["success"], r["result"]["unexpected_index_list"])
                for r in one["results"]] for one in told]
    assert results[0] == [("plane_given", False, [1]), ("miles_plausible", False, [2, 4]),
                          ("plane_american", False, [2, 3])]
    assert all(result == results[0] for result in results)
    assert "null: record 2" in shop.check("trips.avro", "--suite", "trip", code=1).stdout


def test_json_is_great_expectations_own_result_and_says_what_could_not_be_read(shop: Shop) -> None:
    ended = shop.check("trips.csv", "--suite", "trip", "--json", code=1)
    told = as_gx(ended)
    assert told["success"] is False
    assert told["meta"]["headrace"] == {
        "file": "trips.csv", "suite": str(shop.folder / "schemas/trip.expectations.json"), "rows": 5,
        "unread_count": 1, "unread": [{"line": 4, "reasons": ["miles: “x” is not an int"]}]}
    assert told["meta"]["great_expectations_version"]
    assert told["statistics"]["evaluated_expectations"] == 3
    assert ended.stdout.count("\n") == 1


def test_html_is_written_beside_what_is_printed(shop: Shop) -> None:
    told = shop.check("trips.csv", "--suite", "trip", "--html", "page.html", code=1).stdout
    page = Path("page.html").read_text()
    assert told.splitlines()[-1].removeprefix("trip fails: ") in page
    assert "“[b]X␛[/b]”" in page
    assert "1 line that could not be read" in page
    assert "cannot be written" in shop.wrong("check", "trips.csv", "--suite", "trip", "--html", ".")


def test_columns_that_the_schema_lacks_are_passed_over_and_told(shop: Shop) -> None:
    shop.csv("plane;more;miles;at", f"N1;;100;{DAY}", f"-;;100;{DAY}", name="more.csv")
    ended = shop.check("more.csv", "--suite", "trip", "--delimiter", ";", "--nulls", "-", code=1)
    assert ended.stderr == "passed over, since the schema has no such fields: more\n"
    assert "null: line 3" in ended.stdout


def test_verdicts_over_the_whole_file_have_an_observed_value(shop: Shop) -> None:
    mean = {"column": "miles", "max_value": 9}
    shop.suite({"id": "mean", "type": "expect_column_mean_to_be_between", "kwargs": mean},
               {"id": "once", "type": "expect_column_values_to_be_unique", "kwargs": {"column": "miles"}})
    told = shop.check("trips.csv", "--suite", "trip", code=1).stdout
    assert "observed 1904.0" in told
    assert "100, 2 times: lines 2, 3" in told
