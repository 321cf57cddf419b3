"""Schemathesis against a running worker: whatever is sent, no 5xx, and every answer is as the document says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS

from headrace.connect import openapi
from headrace.settings import Settings
from tests.conftest import Stack
from tests.integration.restworld import Worker, inside
from tests.unit.restkit import levels_kept, lines

pytestmark = pytest.mark.integration
EXAMPLES = 12
NAME = f"schemathesis-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with one connector, stopped, so that changing it starts nothing."""
    project = tmp_path_factory.mktemp("schemathesis")
    with levels_kept(), inside(Settings(project, stack.bootstrap, stack.registry), None) as worker:
        body = {"name": NAME, "config": lines(project), "initial_state": "STOPPED"}
        assert worker.ask("POST", "/connectors", body).status == 201
        yield worker
        worker.ask("DELETE", f"/connectors/{NAME}/offsets")


schema = schemathesis.openapi.from_dict(openapi.document("0"))
CONTENT_UNSAID = [CHECKS.get_one("positive_data_acceptance")]
"""No schema says which configurations are right: refusing one (400) is no fault."""
KEEPS = ("/resume", "/pause", "/restart")
"""What would give the connector tasks is asked of another name only."""


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=EXAMPLES, phases=[Phase.explicit, Phase.generate], deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
def test_anything(worker: Worker, case: Any) -> None:
    case.call_and_validate(base_url=worker.address, excluded_checks=CONTENT_UNSAID)
    assert worker.ask("GET", "/health").status == 200


def test_the_worker_tells_this_document(worker: Worker) -> None:
    assert worker.ask("GET", "/openapi.json").data["paths"] == openapi.document("0")["paths"]


@schema.include(path_regex=r"^/connectors/\{connector\}").parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=EXAMPLES, phases=[Phase.generate], deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
def test_anything_of_a_connector_that_is_there(worker: Worker, case: Any) -> None:
    if (case.method == "DELETE" and case.path.endswith("}")) or case.path.endswith(KEEPS):
        return
    case.path_parameters["connector"] = NAME
    if case.method in ("PUT", "PATCH") and case.path.endswith("/config") and isinstance(case.body, dict):
        case.body = {**case.body, "connector.class": "FileStreamSource", "file": "in.txt", "topic": "t"}
        case.body.pop("name", None)
    case.call_and_validate(base_url=worker.address, excluded_checks=CONTENT_UNSAID)
    assert worker.ask("GET", f"/connectors/{NAME}/status").status == 200


