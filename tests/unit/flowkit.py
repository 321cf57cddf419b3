"""A small project in a folder, for the tests of flows: a departure's schema, its suite, and a flow to break."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMA: dict[str, Any] = {"type": "record", "name": "departure", "fields": [
    {"name": "flight", "type": "int"},
    {"name": "carrier", "type": "string", "default": "UA"},
    {"name": "tailnum", "type": ["null", "string"], "default": None},
    {"name": "distance", "type": ["null", "double"], "default": None},
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
]}
SUITE = {"name": "departure", "expectations": [
    {"id": "tailnum_known", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "tailnum"}},
    {"id": "far_enough", "type": "expect_column_values_to_be_between",
     "kwargs": {"column": "distance", "min_value": 1, "max_value": 6000}},
]}
FLOW = """\
flow: departures
owner: flight-ops
source:
  kafka: {topic: flights.departures, schema: departure, partitions: 3, retention_ms: -1, key: tailnum}
steps:
  check:  {validate: {suite: departure}}
  enrich: {derive: {long_haul: "distance > 2000"}}
  split:  {from: enrich, route: {far: "long_haul"}}
sinks:
  flights.checked: {from: enrich, kafka: {key: tailnum, compact: true, partitions: 2}}
  flights.far: {from: split.far, kafka: {}}
  flights.quarantine: {from: check.failure, quarantine: {}}
drop: [split.unmatched]
"""


def write(folder: Path, flow: str = FLOW, name: str = "departures", **files: str) -> Path:
    """The project in `folder`, with `flow` in it; gives the flow's path. `files` replace schema and suite."""
    for kind in ("flows", "schemas"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    (folder / "schemas" / "departure.avsc").write_text(files.get("schema") or json.dumps(SCHEMA))
    (folder / "schemas" / "departure.expectations.json").write_text(files.get("suite") or json.dumps(SUITE))
    path = folder / "flows" / f"{name}.yaml"
    path.write_text(flow)
    return path
