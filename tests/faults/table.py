"""All rows, in the order of the page; 4, 5, 7 and 8 have tests of their own, which stand here as they are."""

from __future__ import annotations

from tests.faults import rows_broker, rows_clock, rows_data, rows_event, rows_group, rows_kill, rows_random
from tests.faults.row import BROKER_S, OTHER_ID_S, SAME_ID_S, Row, Size

ROWS = (
    Row(1, "none", rows_data.reference, Size(1_000_000), Size(100_000)),
    Row(2, "kill -9 at each stage", rows_kill.at_each_stage, Size(100_000, 10), Size(20_000, 1), recovers_s=SAME_ID_S),
    Row(3, "zombie: stopped, or polling on", rows_kill.zombies, Size(50_000, 10), Size(6_000, 1),
        recovers_s=OTHER_ID_S),
    Row(6, "broker killed", rows_broker.broker_killed, Size(100_000, 5), Size(8_000, 1), breaks=True,
        recovers_s=BROKER_S),
    Row(9, "rebalance storm", rows_group.storm, Size(200_000, minutes=5), Size(8_000, minutes=0.35)),
    Row(10, "poison", rows_data.poison, Size(200_000), Size(20_000)),
    Row(11, "oversized", rows_data.oversized, Size(100_000), Size(20_000)),
    Row(12, "registry away, schema evolves", rows_broker.registry_away, Size(100_000, 1, minutes=1),
        Size(4_000, 1, minutes=0.1), breaks=True),
    Row(13, "downstream fails", rows_event.failing, Size(1_000), Size(100)),
    Row(14, "disk full", rows_broker.disk_full, Size(100_000, 3), Size(20_000, 1), breaks=True),
    Row(15, "clock an hour off", rows_clock.clocks, Size(20_000, 2), Size(4_000, 1)),
    Row(16, "repeated input", rows_data.repeated, Size(100_000, 10), Size(20_000, 2), recovers_s=SAME_ID_S),
    Row(17, "backlog", rows_group.backlog, Size(2_000_000), Size(200_000)),
    Row(18, "whatever comes", rows_random.soak, Size(100_000, minutes=30), Size(8_000, minutes=1), breaks=True),
)


def rows(numbers: str | None = None) -> list[Row]:
    """Those of “2,4,7”; all, if left out."""
    wanted = {int(each) for each in numbers.split(",")} if numbers else {row.number for row in ROWS}
    absent = wanted - {row.number for row in ROWS}
    if absent:
        raise SystemExit(f"no rows {sorted(absent)}; there are {sorted(row.number for row in ROWS)}")
    return [row for row in ROWS if row.number in wanted]
