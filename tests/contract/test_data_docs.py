"""Great Expectations' own Data Docs, built from our results: it reads them back, complains of nothing, and shows what
it shows of its own."""

from __future__ import annotations

import datetime as dt
import html
import json
import logging
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.contracts import compile_suite, parse
from headrace.contracts.results import map_verdict, suite_result
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict

pytestmark = pytest.mark.contract

ROWS = pa.record_batch({
    "tailnum": pa.array(["N14228", None, "n2", "N14228", "Ä 9", ""]),
    "distance": pa.array([10, None, 300, 9001, 9001, 200], pa.int32()),
    "delay": pa.array([1, 2, 3, 4, 300, 6], pa.int32()),
    "at": pa.array([dt.datetime(2013, 2, 8, 17)] * 5 + [None], pa.timestamp("us", "UTC"))})
WRITTEN: list[dict[str, Any]] = [
    {"id": "given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "tailnum"}},
    {"id": "formed", "type": "expect_column_values_to_match_regex",
     "kwargs": {"column": "tailnum", "regex": "^N[0-9]+$", "mostly": 0.9}, "severity": "warning"},
    {"id": "plausible", "type": "expect_column_values_to_be_between",
     "kwargs": {"column": "distance", "min_value": 50.0, "max_value": 5000.0}},
    {"id": "known", "type": "expect_column_values_to_be_in_set",
     "kwargs": {"column": "delay", "value_set": [1, 2, 3, 4, 6], "mostly": 0.5}},
    {"id": "further", "type": "expect_column_pair_values_a_to_be_greater_than_b",
     "kwargs": {"column_A": "distance", "column_B": "delay"}},
    {"id": "apart", "type": "expect_select_column_values_to_be_unique_within_record",
     "kwargs": {"column_list": ["distance", "delay"]}},
    {"id": "timed", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "at"}},
    {"id": "timely", "type": "expect_column_values_to_be_between",
     "kwargs": {"column": "at", "min_value": "2013-02-09T00:00:00+00:00"}, "severity": "info"}]
META = {"batch_id": "headrace-departures", "batch_spec": {"data_asset_name": "departures", "offset": 100},
        "batch_markers": {"ge_load_time": "20130208T170000.000000Z"}}
SUITE = parse({"name": "departure", "expectations": WRITTEN}, "departure.expectations.json")


class Site:
    """A Great Expectations context with stores and a Data Docs site in a folder."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import great_expectations as gx
            from great_expectations.data_context.types.base import (
                DataContextConfig,
                FilesystemStoreBackendDefaults,
                ProgressBarsConfig,
            )
        self.folder, self.new_suite = folder, gx.ExpectationSuite
        self.context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(
            store_backend_defaults=FilesystemStoreBackendDefaults(root_directory=str(folder)),
            analytics_enabled=False, progress_bars=ProgressBarsConfig(globally=False)))

    def keep(self, run: str, result: dict[str, Any]) -> None:
        """Reads a result and puts it into the store of validation results, as a checkpoint does."""
        from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResultSchema
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.data_context.types import resource_identifiers as ids

        run_id = {"run_name": run, "run_time": "2013-02-08T17:00:00+00:00"}
        result = {**result, "meta": {**result["meta"], "run_id": run_id}}
        self.context.validation_results_store.store_validation_results(
            ExpectationSuiteValidationResultSchema().load(json.loads(json.dumps(result))),
            ids.ValidationResultIdentifier(
                expectation_suite_identifier=ids.ExpectationSuiteIdentifier(result["suite_name"]),
                run_id=RunIdentifier(**run_id), batch_identifier="departures"))

    def judged_by_it(self) -> dict[str, Any]:
        """Great Expectations' own result, of the same expectations on the same rows, with ids it can read."""
        asset = self.context.data_sources.add_pandas("headrace").add_dataframe_asset("departures")
        batch = asset.add_batch_definition_whole_dataframe("b").get_batch(
            batch_parameters={"dataframe": ROWS.to_pandas()})
        bare = [{k: v for k, v in e.items() if k != "id"} for e in WRITTEN]
        done = batch.validate(self.new_suite(name="departure", expectations=bare),
                              result_format={"result_format": "COMPLETE"}).to_json_dict()
        return {**done, "meta": {**META, "great_expectations_version": done["meta"]["great_expectations_version"]}}

    def pages(self) -> dict[str, str]:
        """Builds the site. Run → its page, as a reader sees it."""
        self.context.build_data_docs()
        files = (self.folder / "uncommitted/data_docs/local_site/validations").rglob("*.html")
        return {file.parts[-3]: _text(file.read_text(encoding="utf-8")) for file in files}


def _text(page: str) -> str:
    seen = re.sub(r"<(script|style|head)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(seen).split())


def _verdict(e: Expectation) -> Verdict:
    kernel = compile_suite(parse({"expectations": [{"type": e.type, "kwargs": e.kwargs}]}, "s"), ROWS.schema
                           ).checks[0].kernel
    assert kernel is not None
    return map_verdict(e, ROWS, kernel.bad(ROWS), kernel.judged(ROWS))


def test_data_docs_of_our_results_are_those_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    verdicts = [(e, _verdict(e)) for e in SUITE.expectations]
    broken = [(e, Verdict(False, {}, "TypeError: 300 is $no time") if e.id == "timely" else v) for e, v in verdicts]
    with caplog.at_level(logging.WARNING):
        site = Site(tmp_path)
        site.keep("ours", suite_result(SUITE, verdicts, meta=META))
        site.keep("theirs", site.judged_by_it())
        site.keep("raised", suite_result(SUITE, broken, meta=META))
        pages = site.pages()
    assert [r.getMessage() for r in caplog.records] == []
    assert pages.keys() == {"ours", "theirs", "raised"}
    for page in pages.values():
        assert "Traceback" not in page
        assert "Exception occurred" not in page

    ours = pages["ours"]
    for shown in (
            "Expectation Suite: departure Data asset: departures Status: Failed",
            "Evaluated Expectations 8 Successful Expectations 2 Unsuccessful Expectations 6 Success Percent 25%",
            "values must never be null. 1 unexpected values found. ≈16.67% of 6 total rows. "
            "Unexpected Value Count Index null 1 1",
            "values must be greater than or equal to 50.0 and less than or equal to 5000.0 . "
            "3 unexpected values found. 60% of 6 total rows. Unexpected Value Count Index 10.0 1 0 9001.0 2 3, 4",
            "values must match this regular expression: ^N[0-9]+$ , at least 90 % of the time.",
            "Ä 9 1 4", "[None, 2] 1 1", "2013-02-08T17:00:00+00:00 5 0, 1, 2, 3, 4", "NaT 1 5"):
        assert shown in ours, f"{shown}\n{ours}"
    words = [Counter(pages[run].replace(run, "").split()) for run in ("ours", "theirs")]
    assert words[0] == words[1], (words[0] - words[1], words[1] - words[0])

    assert "expect_column_values_to_be_between raised an exception: TypeError: 300 is $no time" in pages["raised"]
    index = (tmp_path / "uncommitted/data_docs/local_site/index.html").read_text(encoding="utf-8")
    assert all(f"validations/departure/{run}/" in index for run in pages)
