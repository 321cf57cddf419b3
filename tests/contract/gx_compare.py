"""Our verdicts on a case held against Great Expectations' own: what the differential tests and the mutation check ask.

`Report.verdicts` is compared in Python (values and their types), `Report.to_gx()` as JSON, `Report.failures` with the
rows that Great Expectations lists.
"""

from __future__ import annotations

import datetime as dt
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.contracts import compile_suite, contract, parse, whole
from headrace.contracts.results.values import NotATime
from headrace.contracts.verdict import Verdict
from headrace.errors import SuiteError
from tests.contract.gx_cases import Case
from tests.contract.gx_oracle import Oracle, messages

_AT = re.compile(r"\Asuite: (\d+)\b")
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Told:
    """What Great Expectations says of one expectation."""

    success: bool
    result: Mapping[str, Any]
    json: Mapping[str, Any] | None
    """None where it cannot be serialised."""
    raised: tuple[str, ...]
    """What its metrics raised, if any did."""


@dataclass(frozen=True, slots=True)
class Ours:
    """What we say of one expectation; `tier` is “refused” where we refuse it, and `why` says why."""

    tier: str
    why: str
    verdict: Verdict | None = None
    json: Mapping[str, Any] | None = None
    failures: Sequence[int] = ()


def theirs(oracle: Oracle, case: Case) -> dict[int, Told]:
    """Position → verdict; expectations that Great Expectations refuses are absent."""
    try:
        judged = oracle.judge(case.rows, case.written, case.values)
    except Exception:  # of a condition beside an expectation of types, which costs it the whole suite
        return {at: told for at, e in enumerate(case.written) for told in _alone(oracle, case, e)}
    out = {}
    for at, one in judged.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                json = plain(one.to_json_dict()["result"])
        except TypeError:  # a duration
            json = None
        out[at] = Told(bool(one.success), plain(dict(one.result)), json, messages(one))
    return out


def _alone(oracle: Oracle, case: Case, written: Mapping[str, Any]) -> list[Told]:
    one = replace(case, written=[written])
    try:
        oracle.judge(case.rows, one.written, case.values)
    except Exception as error:
        return [Told(False, {}, {}, (str(error),))]
    return list(theirs(oracle, one).values())


def ours(case: Case) -> dict[int, Ours]:
    """Position → verdict, by one suite of all that is not refused."""
    written = {at: {**e, "id": str(at)} for at, e in enumerate(case.written)}
    out: dict[int, Ours] = {}
    while True:
        try:
            made = compile_suite(parse({"name": "all", "expectations": list(written.values())}, "suite"),
                                 case.rows.schema, case.values)
            break
        except SuiteError as error:
            at = int(_AT.findall(str(error))[0])
            out[at] = Ours(REFUSED, str(error))
            del written[at]
    report = made.check(case.rows)
    assert report.success == all(verdict.success for _, verdict in report.verdicts) == report.to_gx()["success"]
    verdicts = {int(e.id): verdict for e, verdict in report.verdicts}
    told = dict(zip(written, report.to_gx()["results"], strict=True))
    rows: dict[int, list[int]] = {at: [] for at in written}
    for at, row in zip(*(report.failures.column(c).to_pylist() for c in ("expectation_id", "row")), strict=True):
        rows[int(at)].append(row)
    return out | {at: Ours(check.tier, check.why, verdicts[at], told[at], rows[at])
                  for at, check in zip(written, made.checks, strict=True)}


@contextmanager
def unblamed() -> Iterator[None]:
    """Where Great Expectations raises, the rows to blame are not looked for: that takes a validation each, and what is
    compared here does not have them."""
    def all_(size: int, told: str, *asked: Any) -> tuple[Any, dict[int, str]]:
        return np.arange(size), dict.fromkeys(range(size), told)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "halve", all_)
        patch.setattr(whole, "halve", all_)
        yield


def agree(oracle: Oracle, rows: pa.RecordBatch, written: Sequence[Mapping[str, Any]], tiers: set[str]) -> None:
    """Asserts that Great Expectations judges them all, and that we, by these tiers, say the same."""
    asked = Case(0, rows, written, {})
    mine, told = ours(asked), theirs(oracle, asked)
    assert {each.tier for each in mine.values()} <= tiers
    assert len(told) == len(written)
    assert not any(each.raised for each in told.values())
    found = [what for _, what in differences(asked, mine, told)]
    assert not found, "\n".join(found)


def differences(case: Case, mine: Mapping[int, Ours], told: Mapping[int, Told]) -> Iterator[tuple[int, str]]:
    """Position and what differs there."""
    for at, each in mine.items():
        found = _difference(case, at, each, told.get(at))
        if found:
            yield at, f"seed {case.seed}, {at} ({each.tier}): {case.written[at]} on {case.rows.num_rows} rows: {found}"


def _difference(case: Case, at: int, mine: Ours, told: Told | None) -> str:
    if told is None:
        return "" if mine.verdict is None else "Great Expectations refuses it"
    if mine.verdict is None:
        known = bool(told.raised) or _nothing(case, case.written[at], told)
        return "" if known else f"refused ({mine.why}), and Great Expectations judges it: {told.result}"
    if told.raised:
        said = str(mine.verdict.raised)
        alike = said in told.raised or (mine.tier == "whole" and any(t.splitlines()[0] == said for t in told.raised))
        plainly = (mine.verdict.success, dict(mine.verdict.result), alike) == (False, {}, True)
        return "" if plainly else f"{mine.verdict}, and Great Expectations raises {told.raised}"
    if mine.verdict.raised is not None:
        return f"raised {mine.verdict.raised}, and Great Expectations judges it: {told.result}"
    if mine.verdict.success is not told.success:
        return f"{mine.verdict}, and Great Expectations says {told.success}: {told.result}"
    return _results(case, case.written[at], mine, told)


def _nothing(case: Case, written: Mapping[str, Any], told: Told) -> bool:
    """Whether there was no value to be judged: Great Expectations then never comes to what is wrong with an
    argument."""
    if "element_count" in told.result:
        return bool(told.result["element_count"] == told.result.get("missing_count", 0))
    if told.result == {"observed_value": None}:  # its row_condition leaves no value
        return True
    columns = [case.rows.column(name) for name in _columns(written) if name in case.rows.schema.names]
    return not case.rows.num_rows or any(c.is_null(nan_is_null=True).false_count == 0 for c in columns)


def _results(case: Case, written: Mapping[str, Any], mine: Ours, told: Told) -> str:
    assert mine.verdict is not None
    assert mine.json is not None
    types = [case.rows.schema.field(c).type for c in _columns(written) if c in case.rows.schema.names]
    if mine.tier != "whole":
        found = _compared(mine.verdict.result, told.result, any(map(pa.types.is_nested, types)))
        if found:
            return found
    if told.json is not None:
        single = any(map(pa.types.is_float32, types))  # it rounds them, and makes infinities of the large ones
        found = _compared(plain(mine.json["result"]), told.json, near=single)
        if found:
            return f"as JSON: {found}"
    index = told.result.get("unexpected_index_list", [])
    return "" if list(mine.failures) == list(index) else f"failures in {mine.failures}, Great Expectations: {index}"


def _columns(written: Mapping[str, Any]) -> list[str]:
    kwargs = written["kwargs"]
    return [kwargs[k] for k in ("column", "column_A", "column_B") if k in kwargs] + list(kwargs.get("column_list", []))


def _compared(mine: Mapping[str, Any], theirs: Mapping[str, Any], nested: bool = False, near: bool = False) -> str:
    if list(mine) != list(theirs):
        return f"keys {list(mine)}, Great Expectations: {list(theirs)}"
    for key, value in mine.items():
        other = theirs[key]
        if key == "partial_missing_list":  # in the order of a Python set
            value, other = ((sorted(v, key=repr) if len(v) < 20 else len(v)) for v in (value, other))
        if not same(value, other, nested, near):
            return f"{key}: {value!r}, Great Expectations: {other!r}"
    return ""


def plain(value: Any) -> Any:
    """Great Expectations' value in plain Python; its times in pairs stay numpy's."""
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value.tolist()]
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        return value.item()
    if type(value).__name__ == "NaTType":
        return "NaT"
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime(warn=False) if value.nanosecond == 0 else value
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return type(value)(plain(v) for v in value) if isinstance(value, list | tuple) else value


def same(mine: Any, theirs: Any, nested: bool = False, near: bool = False) -> bool:
    """Equal in value and type; NaN is NaN. `nested`: inside a list that is a value, a null may be NaN. `near`: floats
    within the sixth digit."""
    if isinstance(mine, NotATime):
        return bool(theirs == "NaT")
    if isinstance(mine, dict):
        return isinstance(theirs, dict) and list(mine) == list(theirs) and all(
            same(v, theirs[k], nested, near) for k, v in mine.items())
    if isinstance(mine, list | tuple):
        return type(mine) is type(theirs) and len(mine) == len(theirs) and all(
            same(m, t, nested, near) for m, t in zip(mine, theirs, strict=True))
    if isinstance(mine, np.datetime64 | np.timedelta64):
        alike = bool(mine == theirs) or (bool(np.isnat(mine)) and bool(np.isnat(theirs)))
        return alike and mine.dtype == theirs.dtype
    if isinstance(mine, float) and isinstance(theirs, float):
        far = near and (abs(mine - theirs) <= 1e-5 * abs(mine) or np.isinf(theirs))
        return mine == theirs or (mine != mine and theirs != theirs) or bool(far)
    if isinstance(mine, str) and isinstance(theirs, np.datetime64):  # the most common values
        return mine == str(theirs)
    if mine is None:
        return theirs is None or (nested and theirs != theirs)
    times = isinstance(mine, dt.date | dt.timedelta)  # of which pandas' own are kinds
    alike = times and (isinstance(theirs, type(mine)) or isinstance(mine, type(theirs)))
    alike = alike or type(mine) is type(theirs)
    return alike and bool(mine == theirs)
