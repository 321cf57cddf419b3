"""Training runs as OpenLineage events: which offsets went in, which version of which model came out.

    started = run_event("START", trigger=id, at_ms=now, job="train flight-delay", inputs=spans, kafka="broker:9092")
    send(started, "http://marquez:5000")

A run's id is made of its trigger's, so that START and COMPLETE find each other however often they are sent.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.batch import Span
from headrace.errors import MissingExtra, Retriable, UserError

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

STATES = ("START", "COMPLETE", "FAIL")
NAMESPACE = "headrace"
PRODUCER = "https://headrace.invalid/loop"
"""A URI, as the specification asks, that names us and leads nowhere."""
FACET = "headrace_offsets"
"""Our own facet of an input: its offset ranges. Names of such begin with their maker's, says the specification."""


def run_id(trigger: str) -> str:
    """The run's UUID: always the same for a trigger."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PRODUCER}/{trigger}"))


def run_event(state: str, *, trigger: str, at_ms: int, job: str, inputs: Sequence[Span], kafka: str,
              model: tuple[str, str] | None = None, registry: str = "mlflow", rows: int | None = None,
              owner: str | None = None, error: str | None = None, tags: Mapping[str, str] | None = None) -> RunEvent:
    """The event of a run's START, COMPLETE or FAIL.

    `inputs` become a data set a topic, named as OpenLineage names Kafka's (kafka://host:port, topic), with the ranges
    read as its version; `model` = (name, version) the data set that came out, in the namespace `registry`; `rows` are
    told where there is one topic. `error` belongs to FAIL. `tags` (git commit, lock digest, data digest) go with the
    run. Raises UserError (another state), MissingExtra.
    """
    if state not in STATES:
        raise UserError(f"a run's event is one of {', '.join(STATES)}, not {state}")
    try:
        from openlineage.client import event_v2 as ol
        from openlineage.client import facet_v2 as facets
    except ImportError as missing:
        raise MissingExtra("ml", "lineage events (openlineage-python)") from missing
    run_facets: dict[str, Any] = {}
    if error is not None:
        run_facets["errorMessage"] = facets.error_message_run.ErrorMessageRunFacet(
            message=error, programmingLanguage="Python", producer=PRODUCER)
    if tags:
        run_facets["tags"] = facets.tags_run.TagsRunFacet(
            tags=[facets.tags_run.TagsRunFacetFields(k, v, "headrace") for k, v in tags.items()], producer=PRODUCER)
    job_facets: dict[str, Any] = {"jobType": facets.job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration="HEADRACE", jobType="TRAINING", producer=PRODUCER)}
    if owner is not None:
        job_facets["ownership"] = facets.ownership_job.OwnershipJobFacet(
            owners=[facets.ownership_job.Owner(owner)], producer=PRODUCER)
    return ol.RunEvent(
        eventTime=datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        eventType=ol.RunState(state), run=ol.Run(run_id(trigger), run_facets),
        job=ol.Job(NAMESPACE, job, job_facets), producer=PRODUCER,
        inputs=_inputs(inputs, kafka, rows), outputs=_outputs(model, registry))


def _inputs(spans: Sequence[Span], kafka: str, rows: int | None) -> list[InputDataset]:
    from openlineage.client import facet_v2 as facets
    from openlineage.client.event_v2 import InputDataset

    topics: dict[str, list[Span]] = {}
    for span in sorted(spans):
        topics.setdefault(span.topic, []).append(span)
    made = []
    for topic, held in topics.items():
        ranges = [{"partition": s.partition, "offsetFirst": s.offset_first, "offsetLast": s.offset_last} for s in held]
        own = facets.InputDatasetFacet(producer=PRODUCER).with_additional_properties(ranges=ranges)
        told: dict[str, Any] = {FACET: own}
        if rows is not None and len(topics) == 1:
            told["inputStatistics"] = facets.input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                rowCount=rows, producer=PRODUCER)
        version = ",".join(f"{s.partition}@{s.offset_first}-{s.offset_last}" for s in held)
        made.append(InputDataset(f"kafka://{kafka}", topic, told, facets={
            "version": facets.dataset_version_dataset.DatasetVersionDatasetFacet(version, producer=PRODUCER)}))
    return made


def _outputs(model: tuple[str, str] | None, registry: str) -> list[OutputDataset]:
    from openlineage.client import facet_v2 as facets
    from openlineage.client.event_v2 import OutputDataset

    if model is None:
        return []
    name, version = model
    return [OutputDataset(registry, name, facets={
        "version": facets.dataset_version_dataset.DatasetVersionDatasetFacet(version, producer=PRODUCER),
        "datasetType": facets.dataset_type_dataset.DatasetTypeDatasetFacet("MODEL", producer=PRODUCER)})]


def to_json(event: RunEvent) -> dict[str, Any]:
    """The event as the JSON object that goes over the wire."""
    from openlineage.client.serde import Serde

    made: dict[str, Any] = json.loads(Serde.to_json(event))
    return made


def send(event: RunEvent, url: str, *, timeout_s: float = 5.0) -> None:
    """Posts the event to an OpenLineage server (Marquez, DataHub, …) at `url`, with OpenLineage's own client.

    Raises UserError (no http address), Retriable (the server does not take it). To send twice does no harm.
    """
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: an OpenLineage server has an http address", hint="e.g. http://localhost:5000")
    transport = HttpTransport(HttpConfig(url=url, timeout=timeout_s, retry={"total": 1}))
    try:
        OpenLineageClient(transport=transport).emit(event)
    except Exception as error:  # its client lets through what requests and urllib3 raise
        raise Retriable(f"{url} does not take the lineage event: {error}", retry_after_s=30.0,
                        hint="see that an OpenLineage server runs there; the run itself goes on") from error
    finally:
        transport.close()
