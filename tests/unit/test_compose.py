"""docker-compose.yml passes the compose specification, and says what the containers of the tests and the embedded
stack say."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from headrace.stack import containers, jars, kafka, registry
from headrace.stack.part import HOST

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text()))


def specification() -> Any:
    """A validator of the compose specification, whose schema check-jsonschema carries."""
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    assert schema["title"] == "Compose Specification"
    return jsonschema.validators.validator_for(schema)(schema)


def test_passes_the_compose_specification(compose: dict[str, Any]) -> None:
    specification().validate(compose)


def test_the_specification_would_refuse_an_unknown_key(compose: dict[str, Any]) -> None:
    broken = {**compose, "services": {**compose["services"], "kafka": {"imagen": "apache/kafka:4.3.1"}}}
    with pytest.raises(jsonschema.ValidationError, match="imagen"):
        specification().validate(broken)


def test_images_are_those_of_the_tests_and_of_the_embedded_versions(compose: dict[str, Any]) -> None:
    services, bundles = compose["services"], jars.pinned()
    assert services["kafka"]["image"] == containers.KAFKA_IMAGE
    assert services["registry"]["image"] == containers.REGISTRY_IMAGE
    assert containers.KAFKA_IMAGE.rpartition(":")[2] == bundles["kafka"].version
    assert containers.REGISTRY_IMAGE.rpartition(":")[2] == bundles["registry"].version


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    named = [service["image"] for service in compose["services"].values()]
    named += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert len(named) == 5
    assert all(re.search(r":[\w.-]+$", image) and not image.endswith(":latest") for image in named), named


def test_environment_is_that_of_the_tests(compose: dict[str, Any]) -> None:
    assert compose["services"]["kafka"]["environment"] == containers.kafka_environment()
    assert compose["services"]["registry"]["environment"] == containers.registry_environment()


def test_ports_are_those_of_the_tests_and_of_the_embedded_stack(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["kafka"]["ports"] == [f"{HOST}:{containers.KAFKA_PORT}:{containers.KAFKA_PORT}"]
    assert services["registry"]["ports"] == [f"{HOST}:{containers.REGISTRY_PORT}:{containers.REGISTRY_PORT}"]
    assert kafka.KAFKA.ports["kafka"] == containers.KAFKA_PORT
    assert registry.REGISTRY.ports["registry"] == containers.REGISTRY_PORT


def test_broker_settings_are_those_of_the_embedded_stack(compose: dict[str, Any]) -> None:
    for key, value in kafka.SINGLE_NODE.items():
        assert compose["services"]["kafka"]["environment"][f"KAFKA_{key.replace('.', '_').upper()}"] == value


def test_the_worker_speaks_to_both_and_runs_the_flows_that_are_here(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    network = containers.kafka_environment()["KAFKA_ADVERTISED_LISTENERS"].rpartition("//")[2]
    assert worker["environment"] == {
        "HEADRACE_BOOTSTRAP": network,
        "HEADRACE_REGISTRY": f"http://registry:{containers.REGISTRY_PORT}{registry.API}"}
    assert set(worker["depends_on"]) == {"kafka", "registry"}
    assert all(after["condition"] == "service_healthy" for after in worker["depends_on"].values())
    named = [word for word in worker["command"] if word.isalpha() and word != "run"]
    assert named
    assert all((ROOT / "flows" / f"{flow}.yaml").is_file() for flow in named)


def test_nothing_is_published_to_other_machines(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service["ports"]]
    assert published
    assert all(port.startswith(f"{HOST}:") for port in published)


def test_the_image_does_not_run_as_root() -> None:
    final = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!0|root)\S+", final, re.MULTILINE)


def test_every_data_volume_is_declared(compose: dict[str, Any]) -> None:
    used = [mount.partition(":")[0] for service in compose["services"].values() for mount in service.get("volumes", [])]
    assert {name for name in used if not name.startswith(".")} == set(compose["volumes"])
    assert all((ROOT / name).is_dir() for name in used if name.startswith("."))
