"""The text of a new project's files."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from headrace.scaffold.infer import Shape

FLOW = """\
flow: {name}
description: Hold {name} against their contract; good records go on, the others are kept with their reasons.
owner: {name}-team                      # whom to ask when it stands still
source:
  kafka: {{topic: {name}, schema: {name}, partitions: 4, retention_ms: -1}}
steps:
  check: {{validate: {{suite: {name}}}}}   # schemas/{name}.expectations.json
sinks:
  {name}.valid: {{from: check, kafka: {{schema: {name}}}}}
  {name}.quarantine: {{from: check.failure, quarantine: {{}}}}
tests:
  - name: a record as they should be goes on
    given:
      - {record}
    expect: {{{name}.valid: 1, {name}.quarantine: 0}}
"""
FLAW = """\
  - name: a record with {column} {value} is held back
    given:
      - {record}
    expect: {{{name}.valid: 0, {name}.quarantine: 1}}
"""
SETTINGS = """\
# Left as it is, headrace uses the Kafka and the registry that `headrace up` starts. For others of yours:
# [kafka]
# "bootstrap.servers" = "broker:9092"        # and any other librdkafka property
# [registry]
# url = "http://registry:8081"
"""
README = """\
# {name}

    headrace lint                                       # flows, schemas, suites and connectors agree
    headrace test                                       # the flow's own tests, without a broker
    headrace graph {name}                               # the flow as a picture
    headrace up                                         # a Kafka and a schema registry of your own
    headrace connect connectors/{name}.json --drain     # the file's records to the topic {name}
    headrace run {name} --drain                         # the flow, until it has read them all
    headrace lag                                        # what is left to read: nothing
    headrace consume {name}.valid --from-beginning --until-end -n 5
    headrace quarantine list {name}.quarantine          # what was held back, and why
    headrace down

| file | what it is |
|---|---|
| schemas/{name}.avsc | the shape of a record |
| schemas/{name}.expectations.json | its contract, a Great Expectations suite: the data's bounds, rounded |
| flows/{name}.yaml | source, steps and sinks, and their tests |
| connectors/{name}.json | brings {source} to the topic, in Kafka Connect's format |
"""


def project(shape: Shape, source: str) -> dict[str, str]:
    """Path → text. `source` is the CSV's path, from the project's folder or absolute."""
    name = shape.name
    connector = {"name": name, "connector.class": "file", "topic": name, "file": source, "format": "csv",
                 "schema": name, "topic.creation.default.partitions": "4",
                 "topic.creation.default.retention.ms": "-1"}
    return {
        f"schemas/{name}.avsc": shape.avsc,
        f"schemas/{name}.expectations.json": shape.suite,
        f"flows/{name}.yaml": _flow(shape),
        f"connectors/{name}.json": json.dumps(connector, indent=2) + "\n",
        "headrace.toml": SETTINGS,
        "README.md": README.format(name=name, source=source),
        ".gitignore": ".headrace/\n",
    }


def _flow(shape: Shape) -> str:
    text = FLOW.format(name=shape.name, record=json.dumps(shape.record, ensure_ascii=False))
    if shape.flaw is None:
        return text
    column, value = shape.flaw
    said = "missing" if value is None else f"“{value}”"
    record = json.dumps({**shape.record, column: value}, ensure_ascii=False)
    return text + FLAW.format(name=shape.name, column=column, value=said, record=record)


def example() -> str:
    """Two days of three thermometers, as CSV."""
    start = datetime(2026, 1, 5, tzinfo=UTC)
    lines = ["sensor,taken_at,celsius,battery"]
    for hour in range(48):
        for at, sensor in enumerate(("attic", "cellar", "kitchen")):
            celsius = 12.0 + 4 * at + (hour % 24) / 4
            taken = (start + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%M:%SZ")
            lines.append(f"{sensor},{taken},{celsius:.1f},{100 - hour}")
    return "\n".join(lines) + "\n"
