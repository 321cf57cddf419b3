"""All rows of the suite, by the numbers of the page's table."""

from __future__ import annotations

from tests.faults import (
    rows_broker,
    rows_clock,
    rows_data,
    rows_event,
    rows_group,
    rows_kill,
    rows_network,
    rows_random,
    rows_tests,
)
from tests.faults.row import BROKER_S, OTHER_ID_S, SAME_ID_S, Row, Size

ROWS = (
    Row(1, "none", rows_data.reference, Size(1_000_000), Size(100_000)),
    Row(2, "kill -9 at each stage", rows_kill.at_each_stage, Size(100_000, 10), Size(20_000, 1), recovers_s=SAME_ID_S),
    Row(3, "zombie: stopped, or polling on", rows_kill.zombies, Size(50_000, 10), Size(6_000, 1),
        recovers_s=OTHER_ID_S),
    Row(6, "broker killed", rows_broker.broker_killed, Size(100_000, 5), Size(8_000, 1), breaks=True,
        recovers_s=BROKER_S),
    Row(8, "line cut, slow, narrow, reset", rows_network.network, Size(50_000, minutes=1.5),
        Size(4_000, minutes=0.1)),
    Row(9, "rebalance storm", rows_group.storm, Size(200_000, minutes=5), Size(8_000, minutes=0.35)),
    Row(10, "poison", rows_data.poison, Size(200_000), Size(20_000)),
    Row(11, "oversized", rows_data.oversized, Size(100_000), Size(20_000)),
    Row(12, "registry away, schema evolves", rows_broker.registry_away, Size(100_000, 1, minutes=1),
        Size(4_000, 1, minutes=0.1), breaks=True),
    Row(13, "downstream fails", rows_event.failing, Size(1_000), Size(100)),
    Row(14, "disk full", rows_broker.disk_full, Size(100_000, 3), Size(20_000, 1), breaks=True),
    Row(15, "clock an hour off", rows_clock.clocks, Size(20_000, 2), Size(4_000, 1)),
    Row(16, "repeated input", rows_data.repeated, Size(100_000, 10), Size(20_000, 2), recovers_s=SAME_ID_S),
    Row(17, "backlog", rows_group.backlog, Size(2_000_000), Size(600_000)),
    Row(18, "whatever comes", rows_random.soak, Size(100_000, minutes=30), Size(8_000, minutes=1), breaks=True),
)


TESTS = tuple(Row(number, name, rows_tests.tests(file), Size(0), Size(0)) for number, name, file in (
    (4, "stale EndTxn", "tests/faults/test_stale_endtxn.py"),
    (5, "every error code", "tests/faults/test_error_codes.py"),
    (7, "one of three brokers killed", "tests/integration/test_stack_three.py")))
"""Rows that are tests, which `make test` has by itself."""


def rows(numbers: str | None = None) -> list[Row]:
    """Those of “2,4,7”; all, if left out."""
    every = {row.number: row for row in sorted((*ROWS, *TESTS), key=lambda row: row.number)}
    wanted = {int(each) for each in numbers.split(",")} if numbers else set(every)
    if absent := wanted - set(every):
        raise SystemExit(f"no rows {sorted(absent)}; there are {list(every)}")
    return [row for number, row in every.items() if number in wanted]
