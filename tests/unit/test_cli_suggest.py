"""`headrace contracts suggest` on files: a suite that loads, compiles and holds, from each of the four formats."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from headrace import codec
from headrace.cli import build, suggest
from headrace.codec.container import write_container
from headrace.contractctl import draft
from headrace.contractctl.files import opened, whole
from headrace.contractctl.sample import is_file, shares
from headrace.contracts import compile_suite, load, parse
from headrace.errors import HeadraceError

pytestmark = pytest.mark.unit

SCHEMA = {"type": "record", "name": "Order", "namespace": "t", "fields": [
    {"name": "order_id", "type": "long"}, {"name": "state", "type": "string"},
    {"name": "plane", "type": ["null", "string"], "default": None},
    {"name": "weight", "type": ["null", "double"], "default": None}]}
N = 2_000
FOUND = {"order_id_given", "order_id_unique", "state_given", "state_known", "plane_mostly_given", "plane_form",
         "weight_given", "weight_plausible"}


def orders(rows: int = N) -> list[dict[str, Any]]:
    rng = random.Random(26)
    return [{"order_id": at, "state": rng.choice(["new", "paid", "lost"]),
             "plane": None if rng.random() < 0.1 else f"N{rng.randint(1, 9999)}{rng.choice('ABC')}",
             "weight": round(rng.uniform(1, 900), 1)} for at in range(rows)]


class Shop:
    """A project with a schema, and orders in a file of any format."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.avro = folder, codec.parse(json.dumps(SCHEMA))
        for name in ("schemas", "flows"):
            (folder / name).mkdir()
        (folder / "schemas/order.avsc").write_text(json.dumps(SCHEMA))

    def file(self, format: str, rows: list[dict[str, Any]] | None = None) -> str:
        rows, path = orders() if rows is None else rows, self.folder / f"orders.{format}"
        if format == "csv":
            cells = (",".join("" if v is None else str(v) for v in row.values()) for row in rows)
            path.write_text("\n".join([",".join(rows[0]), *cells]) + "\n")
        elif format == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif format == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            with path.open("wb") as stream:
                write_container(stream, self.avro, pa.RecordBatch.from_pylist(rows, schema=self.avro.arrow))
        return path.name

    def run(self, *words: str) -> Result:
        result = CliRunner().invoke(build(), ["contracts", "suggest", *words], env={"COLUMNS": "200"})
        assert result.exception is None or isinstance(result.exception, SystemExit | HeadraceError), result.exception
        return result

    def done(self, *words: str) -> Result:
        result = self.run(*words)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    def wrong(self, *words: str) -> str:
        error = self.run(*words).exception
        assert isinstance(error, HeadraceError), error
        assert error.exit_code == 2
        return str(error)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "avro"])
def test_a_suite_of_every_format_loads_compiles_and_holds(shop: Shop, format: str) -> None:
    file = shop.file(format)
    result = shop.done(file, "--out", "order", "--schema", "order")
    written = shop.folder / "schemas/order.expectations.json"
    suite = load(written)
    assert {e.id for e in suite.expectations} == FOUND
    assert (suite.name, json.loads(written.read_text())["meta"]["headrace"]["rows"]) == ("order", N)
    with opened(Path(file), shop.avro) as source:
        rows = whole(source).rows
    assert compile_suite(suite, shop.avro.arrow).check(rows).success
    assert "8 expectations, all of which hold on the 2,000 rows of orders" in result.stderr
    assert "wrote schemas/order.expectations.json" in result.stderr
    assert "order_id_unique, plane_mostly_given: judged over many records" in result.stderr
    assert "state_known" in result.stdout
    assert '"lost", "new", "paid"' in result.stdout
    broken = [*rows.slice(0, N - 1).to_pylist(), {**orders(1)[0], "state": "stolen"}]
    report = compile_suite(suite, shop.avro.arrow).check(pa.RecordBatch.from_pylist(broken, schema=shop.avro.arrow))
    assert report.counts["state_known"] == 1


@pytest.mark.parametrize("format", ["parquet", "avro"])
def test_what_has_types_needs_no_schema(shop: Shop, format: str) -> None:
    result = shop.done(shop.file(format))
    printed = json.loads(result.stdout)
    assert printed["name"] == "orders"
    assert {e["id"] for e in printed["expectations"]} == FOUND
    assert parse(printed, "printed").expectations[0].meta["headrace"]["evidence"].startswith("2,000 rows of orders")


def test_text_is_told_its_types_by_the_schema_of_the_suites_name(shop: Shop) -> None:
    said = shop.wrong(shop.file("csv"))
    assert "orders.csv: CSV does not say its types" in said
    assert "--schema" in said
    assert "JSON Lines does not say" in shop.wrong(shop.file("jsonl"))
    assert json.loads(shop.done("orders.csv", "--name", "order").stdout)["name"] == "order"
    (shop.folder / "schemas/orders.avsc").write_text(json.dumps(SCHEMA))
    assert json.loads(shop.done("orders.csv").stdout)["name"] == "orders"


def test_a_suite_for_the_stream_has_what_judges_a_record_alone(shop: Shop) -> None:
    result = shop.done(shop.file("parquet"), "--records-only")
    assert "left out by --records-only: order_id_unique, plane_mostly_given" in result.stderr
    suite = parse(json.loads(result.stdout), "s")
    assert {e.id for e in suite.expectations} == FOUND - {"order_id_unique", "plane_mostly_given"}
    compile_suite(suite, shop.avro.arrow, stream=True)


def test_nothing_is_overwritten_unless_forced(shop: Shop) -> None:
    file, written = shop.file("parquet"), shop.folder / "schemas/order.expectations.json"
    written.write_text("mine")
    assert "it is there already" in shop.wrong(file, "--out", "order")
    assert written.read_text() == "mine"
    shop.done(file, "--out", "order", "--force")
    assert load(written).name == "order"
    assert "there is no folder nowhere" in shop.wrong(file, "--out", "nowhere/s.json")
    shop.done(file, "--out", "./by_path.json", "--name", "mine")
    assert load("by_path.json").name == "mine"


def test_the_summary_for_machines(shop: Shop) -> None:
    shop.file("csv", [*orders(), {"order_id": "x", "state": "new", "plane": None, "weight": 1.0}])
    summary = json.loads(shop.done("orders.csv", "--schema", "order", "--json").stdout)
    assert {e["id"] for e in summary.pop("data")["expectations"]} == FOUND
    assert summary == {"suite": "order", "source": "orders.csv", "rows": N, "read_as": None, "unread_count": 1,
                       "tombstones": 0, "expectations": 8, "for_windows": ["order_id_unique", "plane_mostly_given"],
                       "left_out": []}
    summary = json.loads(shop.done("orders.csv", "--schema", "order", "--json", "--out", "s.json").stdout)
    assert summary["file"] == "s.json"
    assert "data" not in summary
    assert len(load("s.json").expectations) == 8


def test_what_cannot_be_read_is_counted_and_told(shop: Shop) -> None:
    bad = {"order_id": "\x1b[31mx", "state": "new", "plane": None, "weight": 1.0}
    shop.file("csv", [*orders(), *[bad] * 20])
    said = shop.done("orders.csv", "--schema", "order").stderr
    assert "20 lines could not be read, and not learnt from:" in said
    assert "orders.csv:2002: order_id: " in said
    assert "… and 10 more" in said
    assert "\x1b" not in said
    shop.file("jsonl", [bad] * 3)
    assert "no record could be read" in shop.wrong("orders.jsonl", "--schema", "order")
    Path("orders.csv").write_text("order_id,state,plane,weight\n")
    assert "there is no record" in shop.wrong("orders.csv", "--schema", "order")


def test_the_first_rows_only(shop: Shop) -> None:
    file, options = shop.file("parquet"), ("--rows", "500", "--margin", "0", "--strictness", "strict")
    printed = json.loads(shop.done(file, *options).stdout)
    assert printed["meta"]["headrace"] == {"suggested_from": "orders.parquet", "rows": 500, "margin": 0.0,
                                           "strictness": "strict"}
    weights = [row["weight"] for row in orders()[:500]]
    (bounds,) = [e["kwargs"] for e in printed["expectations"] if e["id"] == "weight_plausible"]
    assert (bounds["min_value"], bounds["max_value"]) == (min(weights), max(weights))
    assert "--strictness lo: it is loose, normal or strict" in shop.wrong("orders.parquet", "--strictness", "lo")
    assert suggest._strictness("") == ["loose", "normal", "strict"]
    assert "nothing can be said of 1 rows" in shop.wrong(
        shop.file("avro", [dict.fromkeys(["plane", "weight"]) | {"order_id": 1, "state": "x"}]),
        "--schema", _nullable(shop))


def _nullable(shop: Shop) -> str:
    """A schema of which one row says nothing."""
    bare = {**SCHEMA, "fields": SCHEMA["fields"][2:3]}
    (shop.folder / "schemas/bare.avsc").write_text(json.dumps(bare))
    return "bare"


def test_what_does_not_hold_is_left_out() -> None:
    rows = pa.record_batch({"a": pa.array([1, 2, 3, None], pa.int32()), "t": ["x", "y", "y", "z"]})
    between = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "a", "min_value": 2}}
    suite = parse({"name": "s", "expectations": [
        {"id": "too_high", **between},
        {"id": "holds", **between, "kwargs": {"column": "a", "min_value": 1}},
        {"id": "no_such_column", **between, "kwargs": {"column": "b", "min_value": 1}},
        {"id": "twice", "type": "expect_column_values_to_be_unique", "kwargs": {"column": "t"}}]}, "s")
    found = {each.expectation.id: each.why for each in draft.unfit(suite, suite.expectations, rows)}
    assert found == {"no_such_column": "could not be checked: s: no_such_column (b): there is no column “b”",
                     "too_high": "fails on the data itself: 1 unexpected (33.3 %)",
                     "twice": "fails on the data itself: 2 unexpected (50 %)"}


def test_a_topic_or_a_file() -> None:
    assert not any(is_file(Path(name)) for name in ("flights", "flights.late", "flights.v2"))
    assert all(is_file(Path(name)) for name in ("flights.csv", "a/flights", "/x.PARQUET"))


def test_each_partition_gives_its_share() -> None:
    limits = {0: (0, 100), 1: (50, 350), 2: (7, 7)}
    assert shares(limits, 400) == {0: 0, 1: 50, 2: 7}
    assert shares(limits, 100) == {0: 75, 1: 275, 2: 7}
    rng = random.Random(4)
    for _ in range(300):
        limits = {p: (low := rng.randrange(9), low + rng.choice([0, 1, 3, 1_000, 10**7])) for p in range(5)}
        most = rng.randrange(1, 2_000)
        starts = shares(limits, most)
        assert all(low <= starts[p] <= high for p, (low, high) in limits.items())
        read = sum(high - starts[p] for p, (_, high) in limits.items())
        assert read == min(most, sum(high - low for low, high in limits.values()))


WITHOUT = """
import sys
sys.modules["great_expectations"] = None
import pyarrow as pa
from headrace.contractctl import draft
from headrace.contracts import parse
suite = parse({"name": "s", "expectations": [
    {"id": "dated", "type": "expect_column_values_to_be_dateutil_parseable", "kwargs": {"column": "t"}},
    {"id": "given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "t"}}]}, "s")
for each in draft.unfit(suite, suite.expectations, pa.record_batch({"t": ["2013-02-08"]})):
    print(each.expectation.id, each.why)
"""


def test_without_great_expectations_what_needs_it_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    (said,) = done.stdout.splitlines()
    assert said.startswith("dated could not be checked: ")
    assert "needs the extra “gx”" in said
