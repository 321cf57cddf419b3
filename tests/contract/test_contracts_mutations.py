"""Compiled expectations broken one at a time: the comparison with Great Expectations has to see each.

The comparison is that of test_contracts_differential.py, on a few of its seeds, and on the types a mutation is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace.contracts import across, comparisons, compilers, contract, kernels, lists, pairs, patterns, report, typed
from headrace.contracts.aggregates import Aggregate, counts, distinct, extremes, moments, quantiles, tally
from headrace.contracts.aggregates.bounds import Bounds
from headrace.contracts.kernels import Kernel
from headrace.contracts.results import maps
from headrace.contracts.suite import Expectation
from headrace.contracts.verdict import Verdict
from tests.contract.gx_cases import Case, case
from tests.contract.gx_compare import Told, differences, ours, theirs, unblamed
from tests.contract.gx_oracle import quiet
from tests.contract.test_contracts_differential import EACH

pytestmark = pytest.mark.contract

SEEDS = (0, 4, 5, 11, 13, 15, 51, 57, 68, 73)
"""Of all that the differential test has, some that together see every mutation."""
Patch = pytest.MonkeyPatch
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@pytest.fixture(scope="module")
def judged() -> Iterator[list[tuple[Case, dict[int, Told]]]]:
    """The kept seeds with Great Expectations' verdicts."""
    with quiet() as oracle, unblamed():
        yield [(asked, theirs(oracle, asked)) for asked in (case(seed, EACH) for seed in SEEDS)]


def differing(judged: list[tuple[Case, dict[int, Told]]], about: str) -> list[str]:
    """What differs in expectations whose type has this in its name and that are compiled."""
    out = []
    for asked, told in judged:
        kept = [at for at, e in enumerate(asked.written) if about in e["type"]]
        part = replace(asked, written=[asked.written[at] for at in kept])
        if kept:
            out += [what for at, what in differences(part, ours(part), {
                place: told[at] for place, at in enumerate(kept) if at in told})]
    return out


def arguments(about: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Callable[[Patch], None]:
    """Compilers that take other arguments than those written."""
    return compiled(about, lambda compiler, e, schema: compiler(replace(e, kwargs=change(dict(e.kwargs))), schema))


def compiled(about: str, made: Callable[[Any, Expectation, pa.Schema], Any]) -> Callable[[Patch], None]:
    """Compilers wrapped."""
    def mutate(patch: Patch) -> None:
        for type_, compiler in list(compilers.COMPILERS.items()):
            if about in type_:
                patch.setitem(compilers.COMPILERS, type_, partial(made, compiler))
    return mutate


def masks(about: str, change: Callable[[Mask, pa.RecordBatch, Expectation], Mask]) -> Callable[[Patch], None]:
    """Kernels that find other rows."""
    def made(compiler: Any, e: Expectation, schema: pa.Schema) -> Any:
        kernel = compiler(e, schema)
        if not isinstance(kernel, Kernel):
            return kernel

        def bad(rows: pa.RecordBatch) -> pa.BooleanArray | None:
            found = kernel.bad(rows)
            mask: Mask = np.zeros(rows.num_rows, bool) if found is None else pc.fill_null(found, False).to_numpy(False)
            return pa.array(change(mask, rows, e))
        return replace(kernel, bad=bad)
    return compiled(about, made)


def states(about: str, change: Callable[[Verdict], Verdict]) -> Callable[[Patch], None]:
    """Aggregates with another verdict."""
    def made(compiler: Any, e: Expectation, schema: pa.Schema) -> Any:
        aggregate = compiler(e, schema)
        if not isinstance(aggregate, Aggregate):
            return aggregate
        return replace(aggregate, judge=lambda rows: change(aggregate.judge(rows)))
    return compiled(about, made)


def without(*names: str) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    return lambda kwargs: {k: v for k, v in kwargs.items() if k not in names}


def flipped(name: str, default: bool = False) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    return lambda kwargs: {**kwargs, name: not kwargs.get(name, default)}


def attribute(owner: Any, name: str, made: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """A function replaced by one made of it."""
    return lambda patch: patch.setattr(owner, name, made(getattr(owner, name)))


def _nulls(mask: Mask, rows: pa.RecordBatch, e: Expectation) -> Mask:
    null: Mask = np.any([pc.is_null(rows.column(c)).to_numpy(False) for c in e.columns], axis=0)
    return mask | null


def _first_spared(codes: Any) -> Any:
    repeated = np.zeros(len(codes), bool)
    _, first = np.unique(codes, return_index=True)
    repeated[np.setdiff1d(np.arange(len(codes)), first)] = True
    return repeated


def _elements(verdict_of: Any) -> Any:
    def made(e: Expectation, rows: pa.RecordBatch, *given: Any, **named: Any) -> Verdict:
        verdict: Verdict = verdict_of(e, rows, *given, **named)
        return replace(verdict, result={**verdict.result, "element_count": named["whole"].num_rows})
    return made


def _searched(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: f"^(?:{v})" if k == "regex" else [f"^(?:{p})" for p in v] if k == "regex_list" else v
            for k, v in kwargs.items()}


def _no_deviation(deviation: Any) -> Any:
    def made(array: pa.Array, own: Any) -> tuple[int, float, float]:
        count, total, squares = deviation(array, own)
        return count, total, squares * (count - 1) / count if count else squares
    return made


def _over_all(measured: Any) -> Any:
    return lambda array: (measured(array)[0], len(array))


@dataclass(frozen=True, slots=True)
class Mutation:
    name: str
    about: str
    """In the types that are compared."""
    apply: Callable[[Patch], None]


VALUES, BETWEEN, TO = "column_value", "values_to_be_between", "_to_be_between"
IN_SET = "column_values_to_be_in_set"
MUTATIONS = [
    Mutation("strict bounds of values are not", BETWEEN, arguments(BETWEEN, without("strict_min", "strict_max"))),
    Mutation("bounds of values are strict", BETWEEN, arguments(BETWEEN, lambda k: {**k, "strict_max": True})),
    Mutation("strict bounds of lengths are not", "lengths", arguments("lengths", without("strict_min", "strict_max"))),
    Mutation("lengths are bytes", "lengths", attribute(
        kernels, "characters", lambda _: pc.binary_length)),
    Mutation("nulls are out of bounds", BETWEEN, masks(BETWEEN, _nulls)),
    Mutation("nulls are in no set", IN_SET, masks(IN_SET, _nulls)),
    Mutation("nulls match nothing", "regex", masks("regex", _nulls)),
    Mutation("NaN is a value", "_null", attribute(kernels, "present", lambda _: lambda array: pc.is_valid(array))),
    Mutation("bounds of 64 bits are exact", BETWEEN, lambda patch: patch.setattr(kernels, "EXACT", 2**70)),
    Mutation("a set lacks its first member", IN_SET, arguments(
        IN_SET, lambda k: {**k, "value_set": k["value_set"][1:]})),
    Mutation("not in a set is in it", "values_to_not_be_in_set", masks("values_to_not_be_in_set", lambda m, *_: ~m)),
    Mutation("a regex matches at the start", "to_match_regex", arguments("to_match_regex", _searched)),
    Mutation("of several regexes all have to match", "to_match_regex_list", arguments(
        "to_match_regex_list", lambda k: {**k, "match_on": "all"})),
    Mutation("a regex is RE2's", "regex", lambda patch: patch.setattr(
        patterns.Search, "_needs_python", lambda self, column: False)),
    Mutation("what is no JSON is JSON", "json_parseable", masks("json_parseable", lambda m, *_: m & False)),
    Mutation("JSON of a schema never raises", "json_schema", compiled("json_schema", lambda c, e, schema: (
        replace(k, raises=None) if isinstance(k := c(e, schema), Kernel) else k))),
    Mutation("a time of any form will do", "strftime", arguments(
        "strftime", lambda k: {**k, "strftime_format": "%Y-%m-%dT%H:%M:%S"})),
    Mutation("mostly is left out", VALUES, attribute(maps, "holds", lambda _: lambda e, n, bad: not bad)),
    Mutation("mostly is a share of all rows", "_", attribute(maps, "holds", lambda of: lambda e, n, bad: of(
        e, max(2 * n, 1), bad))),
    Mutation("percents of another denominator", "_", attribute(maps, "_percent", lambda of: lambda part, total: of(
        part, total + 1))),
    Mutation("percents in another order", "_", attribute(maps, "_percent", lambda _: lambda part, total: (
        100 * part / total if total else None))),
    Mutation("elements before the condition", "_", attribute(report, "map_verdict", _elements)),
    Mutation("no row is numbered past 20", "_", lambda patch: patch.setattr(maps, "LISTED_MAX", 20)),
    Mutation("!= drops rows without a value", "_", attribute(
        comparisons, "_filled", lambda of: lambda test, null: of(test, False))),
    Mutation("a condition keeps whole numbers whole", "_", attribute(
        contract, "keep", lambda _: lambda rows, mask: rows.filter(mask))),
    Mutation("a condition is left out", "_", attribute(
        contract, "_kept", lambda _: lambda condition, rows: report.Kept(rows, rows))),
    Mutation("a type is any", "of_type", lambda patch: patch.setattr(typed, "_class", lambda type_: None)),
    Mutation("a null does not change the type", "_type", attribute(typed, "_held", lambda of: lambda array, type_: of(
        array.drop_null(), array.type))),
    Mutation("or_equal is flipped", "greater", arguments("greater", flipped("or_equal"))),
    Mutation("pairs are compared in 32 bits", "pair_values", attribute(pairs, "as_compared", lambda of: lambda both: [
        a.cast(pa.float32(), safe=False) if pa.types.is_floating(a.type) else a for a in of(both)])),
    Mutation("pairs with one missing are left out", "pair_values", attribute(
        pairs, "scoped", lambda of: lambda e, default: of(replace(e, kwargs={
            **e.kwargs, "ignore_row_if": "either_value_is_missing"}), default))),
    Mutation("a null is in no set of pairs", "pair_values_to_be_in_set", masks("pair_values_to_be_in_set", _nulls)),
    Mutation("nulls are not equal", "values_to_be_equal", attribute(
        lists, "_same", lambda _: lambda a, b: pc.fill_null(pc.equal(a, b), False))),
    Mutation("nulls are different", "within_record", attribute(
        lists, "_same", lambda _: lambda a, b: pc.fill_null(pc.equal(a, b), False))),
    Mutation("the last column is not added", "sum_to_equal", attribute(
        lists, "_sum", lambda of: lambda arrays: of(arrays[:-1]))),
    Mutation("unique spares the first", "unique", lambda patch: patch.setattr(across, "_twice", _first_spared)),
    Mutation("zero is not minus zero", "be_unique", attribute(across, "_codes", lambda _: lambda array: (
        (found := array.dictionary_encode(null_encoding="encode")).indices.to_numpy(False).astype(np.int64),
        len(found.dictionary)))),
    Mutation("order need not be strict", "creasing", arguments("creasing", without("strictly"))),
    Mutation("order is the other way", "creasing", masks("creasing", lambda m, *_: np.roll(m, 1))),
    Mutation("z-scores on one side", "z_scores", arguments("z_scores", lambda k: {**k, "double_sided": False})),
    Mutation("z-scores of all values", "z_scores", attribute(across, "_deviation", lambda of: lambda v: (
        of(v) * (1 - 1 / max(len(v), 2))))),
    Mutation("fences are outside", "outliers", attribute(across, "_fences", lambda of: lambda v, m: of(v, m / 4))),
    Mutation("stdev of all values", "stdev", attribute(moments, "_deviation", _no_deviation)),
    Mutation("a mean over all rows", "mean", attribute(moments, "numbers", lambda of: lambda a: (of(a)[0], len(a)))),
    Mutation("a sum of whole numbers in floats", "column_sum", attribute(moments, "numbers", lambda of: lambda a: (
        of(a)[0].astype(np.float64), of(a)[1]))),
    Mutation("the median is the lower one", "median", attribute(quantiles, "_median", lambda _: lambda state, found: (
        np.sort(state.levels[0])[(state.count - 1) // 2].astype(np.float64)))),
    Mutation("quantiles are interpolated", "quantile", arguments("quantile", lambda k: {
        **k, "allow_relative_error": "linear"})),
    Mutation("the largest whole number is one", "column_max", attribute(
        extremes, "_metric", lambda of: lambda found, floats, value: of(found, False, value))),
    Mutation("bounds of aggregates are strict", TO, attribute(Bounds, "hold", lambda of: lambda self, value: of(
        replace(self, above=True, below=True), value))),
    Mutation("bounds of aggregates are never strict", TO, attribute(Bounds, "hold", lambda of: lambda self, value: of(
        replace(self, above=False, below=False), value))),
    Mutation("null is a distinct value", "unique_value", attribute(tally, "distinct", lambda of: lambda made: (
        of(made) + (made.nulls > 0)))),
    Mutation("a share of all rows", "proportion_of_unique", attribute(tally, "tally", lambda of: lambda found, rows: (
        replace(of(found, rows), nulls=0)))),
    Mutation("NaN is there", "non_null", attribute(counts, "missing", lambda _: lambda array: array.null_count)),
    Mutation("the most common, ties or not", "most_common", arguments("most_common", flipped("ties_okay"))),
    Mutation("a set is contained", "distinct_values", attribute(distinct, "_compared", lambda of: lambda *given: of(
        *given[:3], False, True))),
    Mutation("one row more", "row_count", states("row_count", lambda v: replace(v, result={
        "observed_value": v.result["observed_value"] + 1}))),
    Mutation("a column is there in any place", "column_to_exist", arguments(
        "column_to_exist", without("column_index"))),
    Mutation("the set of columns is never exact", "match_set", arguments(
        "match_set", lambda k: {**k, "exact_match": False})),
    Mutation("the order of columns is left out", "ordered_list", states("ordered_list", lambda v: replace(
        v, success=True))),
    Mutation("the number of columns is a bound", "column_count", states("column_count", lambda v: replace(
        v, success=True)))]


def test_unbroken_nothing_differs(judged: list[tuple[Case, dict[int, Told]]]) -> None:
    assert differing(judged, "_") == []
    assert len(MUTATIONS) >= 20
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("type_", sorted(compilers.COMPILERS))
def test_each_type_is_compared(judged: list[tuple[Case, dict[int, Told]]], type_: str, monkeypatch: Patch) -> None:
    """Every compiled type, broken in the bluntest way."""
    masks(type_, lambda mask, *_: ~mask)(monkeypatch)
    states(type_, lambda verdict: replace(verdict, success=not verdict.success))(monkeypatch)
    assert differing(judged, type_)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_each_is_seen(judged: list[tuple[Case, dict[int, Told]]], mutation: Mutation, monkeypatch: Patch) -> None:
    mutation.apply(monkeypatch)
    assert differing(judged, mutation.about)
