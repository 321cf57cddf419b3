"""Model cards say what is known and nothing else; lineage events are what OpenLineage's specification asks for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jsonschema
import pytest

from headrace.batch import Span
from headrace.errors import Retriable, UserError
from headrace.loop.card import SECTIONS, Facts, card, markdown
from headrace.loop.lineage import FACET, run_event, run_id, send, to_json

pytestmark = pytest.mark.unit

SPANS = [Span("flights", 1, 0, 40), Span("flights", 0, 7, 99), Span("labels", 0, 0, 12)]
FACTS = Facts(model="flight-delay", version="7", ranges=SPANS, rows=12_345, metrics={"auc": 0.731234567}, reasons=[],
              slices=[{"origin": "JFK", "auc": 0.74, "n": 4000}, {"origin": "LGA", "n": 3000}],
              trained_at=datetime(2013, 5, 1, tzinfo=UTC), spec={"kind": "gbdt", "features": ["dest", "a|b"]})


def test_every_fact_has_its_place_and_every_place_a_fact() -> None:
    assert sorted(name for titles in SECTIONS.values() for name in titles) == sorted(f.name for f in fields(Facts))


def test_a_card_is_json_and_lists_what_is_not_known() -> None:
    made = json.loads(json.dumps(card(FACTS)))
    assert made["data"] == {"ranges": ["flights/1@0-40", "flights/0@7-99", "labels/0@0-12"], "rows": 12345}
    assert made["origin"] == {"trained_at": "2013-05-01T00:00:00+00:00"}
    assert made["gate"] == {"reasons": []}
    assert {"owner", "git_commit", "digest", "decision"} < set(made["not_known"])
    told = {name for section in made.values() if isinstance(section, dict) for name in section}
    assert told | set(made["not_known"]) == {f.name for f in fields(Facts)}
    assert not told & set(made["not_known"])


def test_the_page() -> None:
    page = markdown(FACTS)
    assert page.startswith("# Model card: flight-delay, version 7\n")
    assert "- **Rows**: 12,345\n" in page
    assert "  - auc: 0.731235\n" in page
    assert "| origin | auc | n |\n|---|---|---|\n| JFK | 0.74 | 4,000 |\n| LGA |  | 3,000 |\n" in page
    assert "- **Reasons**: none\n" in page
    assert "a\\|b" in page
    assert "- Git commit\n" in page.split("## Not known")[1]


def test_nothing_is_invented() -> None:
    """Of no facts, the page has its title and the list of what is not known; each fact given moves one line."""
    nothing = markdown(Facts())
    assert [line for line in nothing.splitlines() if line.startswith("## ")] == ["## Not known"]
    assert card(Facts()) == {"not_known": [name for titles in SECTIONS.values() for name in titles]}
    assert nothing.count("\n- ") == len(fields(Facts))
    assert markdown(Facts(owner="ops")).count("\n- ") == len(fields(Facts))


FACET_SHAPE = {"type": "object", "required": ["_producer", "_schemaURL"], "properties": {
    "_producer": {"type": "string", "format": "uri"}, "_schemaURL": {"type": "string", "format": "uri"}}}
FACETS = {"type": "object", "additionalProperties": FACET_SHAPE}
NAMED = {"type": "object", "required": ["namespace", "name"], "properties": {
    "namespace": {"type": "string"}, "name": {"type": "string"}, "facets": FACETS, "inputFacets": FACETS,
    "outputFacets": FACETS}}
RUN_EVENT = {"type": "object", "required": ["eventTime", "producer", "schemaURL", "run", "job"], "properties": {
    "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
    "eventTime": {"type": "string", "format": "date-time"}, "producer": {"type": "string", "format": "uri"},
    "schemaURL": {"type": "string", "format": "uri"},
    "run": {"type": "object", "required": ["runId"], "properties": {
        "runId": {"type": "string", "format": "uuid"}, "facets": FACETS}},
    "job": NAMED, "inputs": {"type": "array", "items": NAMED}, "outputs": {"type": "array", "items": NAMED}}}
"""What OpenLineage's specification (2-0-2, RunEvent) asks of an event, in our words."""


def event(state: str, **more: Any) -> dict[str, Any]:
    made = to_json(run_event(state, trigger="t" * 64, at_ms=1_385_000_000_123, job="train flight-delay", inputs=SPANS,
                             kafka="broker:9092", **more))
    jsonschema.Draft202012Validator(RUN_EVENT, format_checker=jsonschema.FormatChecker()).validate(made)
    return made


def test_a_run_from_start_to_complete() -> None:
    started = event("START", owner="flight-ops")
    done = event("COMPLETE", model=("flight-delay", "7"), tags={"git_commit": "abc"})
    assert started["run"]["runId"] == done["run"]["runId"] == run_id("t" * 64) != run_id("u" * 64)
    assert started["eventTime"] == "2013-11-21T02:13:20.123+00:00"
    assert started["outputs"] == []
    assert started["job"]["facets"]["ownership"]["owners"] == [{"name": "flight-ops"}]
    assert [(d["namespace"], d["name"]) for d in done["inputs"]] == [
        ("kafka://broker:9092", "flights"), ("kafka://broker:9092", "labels")]
    assert done["inputs"][0]["inputFacets"][FACET]["ranges"] == [
        {"partition": 0, "offsetFirst": 7, "offsetLast": 99}, {"partition": 1, "offsetFirst": 0, "offsetLast": 40}]
    assert done["inputs"][0]["facets"]["version"]["datasetVersion"] == "0@7-99,1@0-40"
    assert [(d["name"], d["facets"]["version"]["datasetVersion"]) for d in done["outputs"]] == [("flight-delay", "7")]
    assert done["run"]["facets"]["tags"]["tags"] == [{"key": "git_commit", "value": "abc", "source": "headrace"}]


def test_a_run_that_fails_says_why() -> None:
    assert event("FAIL", error="no labels")["run"]["facets"]["errorMessage"]["message"] == "no labels"


def test_another_state_is_refused() -> None:
    with pytest.raises(UserError, match="START, COMPLETE, FAIL"):
        event("DONE")


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any], list[int]]]:
    """(address, what was posted, the status it answers with) of a web server."""
    posted: list[Any] = []
    status = [201]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(status[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", posted, status
        running.shutdown()
        thread.join()


def test_an_event_is_posted(server: tuple[str, list[Any], list[int]]) -> None:
    url, posted, status = server
    made = run_event("START", trigger="t", at_ms=0, job="train", inputs=SPANS, kafka="b:9092")
    send(made, url)
    assert [path for path, _ in posted] == ["/api/v1/lineage"]
    assert posted[0][1]["run"]["runId"] == run_id("t")
    status[0] = 400
    with pytest.raises(Retriable, match="does not take"):
        send(made, url)


def test_a_server_that_is_not_there_is_told() -> None:
    made = run_event("START", trigger="t", at_ms=0, job="train", inputs=[], kafka="b:9092")
    with pytest.raises(Retriable, match="does not take"):
        send(made, "http://127.0.0.1:1", timeout_s=1)
    with pytest.raises(UserError, match="http"):
        send(made, "marquez:5000")
