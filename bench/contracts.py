"""Contracts beside Great Expectations, dataframely, pandera and pointblank; and what a suite costs a flow.

    python bench/contracts.py [--rounds N] [--flow-rounds N] [--records N] [--no-flow | --no-libraries]

The same suite of ten (`peers/contracts_suite.py`) on the same flights, 1,000 and 100,000 rows a call, in turns; each
library in an environment of its own, set up once, on frames of its own kind that are there already (so Great
Expectations is not charged for the way from Arrow to pandas). A call ends when it is known how many rows break what;
headrace then also says which rows are good, the others as they are made: dataframely and pandera do, Great Expectations
and pointblank only count. All must count the same. The median of a library's calls is its time in a round, and the
median of the rounds counts.

For two of the ten Great Expectations runs Python row by row, and they are most of its time on 100,000 rows. So a second
comparison, beside the goals, leaves them out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
sys.path.append(str(HERE / "peers"))

import contracts_suite as ten  # noqa: E402
import load  # noqa: E402
import run  # noqa: E402

LIBRARIES = {"headrace": "headrace", "gx": "Great Expectations", "dataframely": "dataframely",
             "pandera": "pandera on polars", "pointblank": "pointblank on polars"}
GOALS = {"gx": (100, 8), "dataframely": (1, 1), "pandera": (1, 1), "pointblank": (1, 1)}
"""How many times faster headrace is to be, at each of ten.ROWS."""
BY_ROW = ("goes_elsewhere", "hour")
"""What Great Expectations runs Python for, row by row."""
FLOW_ROUNDS = 7
"""Runs of a flow differ more than calls do."""
KEPT = 0.85
"""The share of its throughput that a flow is to keep with a suite of ten."""


def write(folder: Path) -> None:
    """The flights that every library reads."""
    import pyarrow as pa

    from headrace import codec

    schema = codec.load(HERE / "project/schemas/flight.avsc").arrow
    folder.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(folder / "flights.arrow", schema) as out:
        out.write_table(pa.Table.from_pylist(load.flights()[:ten.ROWS[1]], schema=schema), max_chunksize=ten.ROWS[0])


def once(library: str, folder: Path, without: Sequence[str]) -> dict[str, Any]:
    """A library, once: {engine, version, rows: {"1000": {ms, calls, broken}, …}}."""
    work = run.WORK / "peers" / f"contracts_{library}"
    work.mkdir(parents=True, exist_ok=True)
    script = HERE / "peers" / f"contracts_{library}.py"
    lines, _, _ = run.measured([str(run.environment(work.name)), str(script), str(folder), *without], work)
    return next(line for line in lines if line.get("engine") == library)


def compared(libraries: Sequence[str], rounds: int, without: Sequence[str] = ()) -> dict[str, Any]:
    """{library: {version, ms: {rows: ms}, ratio: {rows: how many times faster headrace is}}}. Raises AssertionError
    when two count different rows."""
    folder = run.WORK / "contracts"
    write(folder)
    found: dict[str, list[dict[str, Any]]] = {library: [] for library in libraries}
    for at in range(rounds):
        for library, runs in found.items():
            runs.append(once(library, folder, without))
            told = ", ".join(f"{int(rows):,} rows in {one['ms']:.2f} ms (of {one['calls']} calls)"
                             for rows, one in runs[-1]["rows"].items())
            print(f"round {at + 1}: suite of {len(ten.IDS) - len(without)}, {library}: {told}", file=sys.stderr)
    agree(found)
    ms = {library: {str(n): statistics.median(one["rows"][str(n)]["ms"] for one in runs) for n in ten.ROWS}
          for library, runs in found.items()}
    return {library: {"version": runs[0]["version"], "ms": {n: round(t, 3) for n, t in ms[library].items()},
                      "ratio": {} if library == "headrace" else
                      {n: round(t / ms["headrace"][n], 2) for n, t in ms[library].items()}}
            for library, runs in found.items()}


def agree(found: dict[str, list[dict[str, Any]]]) -> None:
    """Every library has counted the same rows for every expectation, in small parts as in the whole."""
    wanted = found["headrace"][0]["rows"][str(ten.ROWS[1])]["broken"]
    assert sum(1 for n in wanted.values() if n) >= 5, f"hardly an expectation is broken: {wanted}"
    for library, runs in found.items():
        for rows, one in ((rows, one) for each in runs for rows, one in each["rows"].items()):
            assert one["broken"] == wanted, f"{library}, {rows} rows a call: {one['broken']}, headrace: {wanted}"


def project(tag: str, topic: str, suite: bool) -> Path:
    """The benchmark's flow with the suite of ten, or without any: what cannot be read still has its quarantine."""
    home = run.project(tag, topic)
    (home / "schemas/flight.expectations.json").write_text(json.dumps(ten.SUITE))
    flow = home / "flows/standard.yaml"
    if not suite:
        lines = [line for line in flow.read_text().splitlines(keepends=True) if "validate:" not in line]
        flow.write_text("".join(lines).replace("from: check.failure, ", ""))
    return home


def flow(topic: str, rounds: int) -> dict[str, Any]:
    """The benchmark's flow over all of the topic, in turns with and without the suite: {with, without: records/s,
    kept: the median of the rounds' ratios, since a machine is slower for minutes at times}.
    Within `run.broker()`. Raises AssertionError unless all that was read was written, and the suite's failures
    to quarantine."""
    rates: dict[str, list[int]] = {"without": [], "with": []}
    for at in range(rounds):
        for which in ("without", "with") if at % 2 else ("with", "without"):
            tag = f"contracts-{which}-{uuid.uuid4().hex[:6]}"
            one = run.run_flow(project(tag, topic, which == "with"), tag)
            valid, bad = load.count(one["valid"]), load.count(one["bad"])
            assert valid + bad == one["records"], f"{which}: {one['records']:,} read, {valid:,} + {bad:,} written"
            assert bool(bad) == (which == "with"), f"{which}: {bad:,} in quarantine"
            rates[which].append(one["records_per_s"])
            print(f"round {at + 1}: flow {which} the suite of ten: {rates[which][-1]:,} records/s, {one['cpu_s']} s of "
                  f"CPU, {bad:,} of {one['records']:,} in quarantine", file=sys.stderr)
    medians = {which: round(statistics.median(told)) for which, told in rates.items()}
    kept = statistics.median(one / other for one, other in zip(rates["with"], rates["without"], strict=True))
    return {**medians, "kept": round(kept, 3)}


def measure(topic: str, rounds: int) -> dict[str, Any]:
    """Within `run.broker()`; `topic` holds flights."""
    return {**libraries(rounds), "flow": flow(topic, max(rounds, FLOW_ROUNDS))}


def libraries(rounds: int) -> dict[str, Any]:
    return {"ten": compared(list(LIBRARIES), rounds), "eight": compared(["headrace", "gx"], rounds, BY_ROW)}


def reached(ratio: float, goal: float) -> str:
    return "reached" if ratio >= goal else "MISSED"


def table(found: dict[str, Any]) -> str:
    """As Markdown."""
    rows = []
    if "ten" in found:
        rows += ["| suite of ten | " + " | ".join(f"{n:,} rows, ms | headrace is | goal" for n in ten.ROWS) + " |",
                 "|---" + "|--:|--:|--:" * len(ten.ROWS) + "|"]
        rows += [f"| {LIBRARIES[library]} {one['version']} {_cells(one, GOALS.get(library, ()))}"
                 for library, one in found["ten"].items()]
        rows += [f"| {LIBRARIES[library]}, without {' and '.join(BY_ROW)} {_cells(one, ())}"
                 for library, one in found["eight"].items()]
    if "flow" in found:
        one = found["flow"]
        rows += [""] if rows else []
        rows += ["| flow | without, records/s | with a suite of ten | keeps | goal |", "|---|--:|--:|--:|--:|",
                 f"| standard | {one['without']:,} | {one['with']:,} | {one['kept']:.1%} | {KEPT:.0%} "
                 f"{reached(one['kept'], KEPT)} |"]
    return "\n".join(rows)


def _cells(one: dict[str, Any], goals: Sequence[int]) -> str:
    """For each of ten.ROWS: time, ratio, goal. headrace itself has no ratio."""
    out = ""
    for at, n in enumerate(map(str, ten.ROWS)):
        ratio = one["ratio"].get(n)
        goal = f"{goals[at]} × {reached(ratio, goals[at])}" if goals else ""
        out += f"| {one['ms'][n]:,.2f} | {'' if ratio is None else f'{ratio} ×'} | {goal} "
    return f"{out}|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flow-rounds", type=int, default=FLOW_ROUNDS)
    parser.add_argument("--records", type=int, default=1_000_000, help="of the flow")
    parser.add_argument("--no-flow", action="store_true")
    parser.add_argument("--no-libraries", action="store_true")
    given = parser.parse_args()
    run.WORK.mkdir(parents=True, exist_ok=True)
    found = {} if given.no_libraries else libraries(given.rounds)
    if not given.no_flow:
        with run.broker():
            topic = f"bench-contracts-{uuid.uuid4().hex[:6]}"
            load.backlog(topic, given.records)
            found["flow"] = flow(topic, given.flow_rounds)
    print(table(found))


if __name__ == "__main__":
    main()
