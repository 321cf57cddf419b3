"""Great Expectations' own Data Docs, built from the results of windows as `headrace contracts report --gx` lays them
out: it finds them, reads them, and complains of nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.contractctl.reports import write_results
from headrace.contractctl.windows import windows
from headrace.control import Verdict
from headrace.processors.validate_window import ValidateWindow, ValidateWindowConfig
from tests.contract.test_data_docs import Site
from tests.unit.statekit import Driven, records

pytestmark = pytest.mark.contract

SCHEMA = pa.schema([("plane", pa.string()), ("miles", pa.int32())])
SUITE = [
    {"id": "given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "plane"},
     "severity": "warning"},
    {"id": "american", "type": "expect_column_values_to_match_regex",
     "kwargs": {"column": "plane", "regex": "^N", "mostly": 0.9}},
    {"id": "further", "type": "expect_column_pair_values_a_to_be_greater_than_b",
     "kwargs": {"column_A": "miles", "column_B": "miles", "or_equal": True}},
    {"id": "once", "type": "expect_column_values_to_be_unique", "kwargs": {"column": "plane"}},
    {"id": "mean", "type": "expect_column_mean_to_be_between", "kwargs": {"column": "miles", "max_value": 200}},
    {"id": "kinds", "type": "expect_column_distinct_values_to_be_in_set",
     "kwargs": {"column": "plane", "value_set": ["N1", "N2", "N3"]}},
    {"id": "median", "type": "expect_column_quantile_values_to_be_between",
     "kwargs": {"column": "miles", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 500]]}}}]


def test_data_docs_of_windows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/trip.expectations.json").write_text(json.dumps({"name": "trip", "expectations": SUITE}))
    step = ValidateWindow(ValidateWindowConfig.model_validate({
        "suite": "trip", "window": {"records": 3}, "checks": [{"volume": {"min": 3}}]}), project=tmp_path)
    step.outputs(SCHEMA)
    driven = Driven(step, SCHEMA)
    planes = ["N1", "N2", "N3", "D5", "D5", None, "N1"]
    driven.feed(records([(0, {"plane": plane, "miles": 100 * at}) for at, plane in enumerate(planes)]))
    found = windows(Verdict.from_record(dict(row)) for row, *_ in driven.got["verdict"])
    with caplog.at_level(logging.WARNING):
        site = Site(tmp_path / "gx")
        assert write_results(tmp_path / "gx/uncommitted/validations", found) == 2
        site.context.build_data_docs()
    assert [r.getMessage() for r in caplog.records] == []
    folder = tmp_path / "gx/uncommitted/data_docs/local_site"
    pages = {file.stem: file.read_text(encoding="utf-8") for file in (folder / "validations").rglob("*.html")}
    assert pages.keys() == {window.name for window in found}
    good, bad = (pages[window.name] for window in found)
    for page in (good, bad):
        assert "Traceback" not in page
        assert "Exception occurred" not in page
        assert "raised an exception" not in page
    assert "Succeeded" in good
    assert "Failed" in bad
    assert "unexpected values found" in bad
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert all(f"validations/trip/flow-step/{at:%Y%m%dT%H%M%S.%fZ}/" in index for at in (w.event.at for w in found))
