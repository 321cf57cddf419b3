"""The demo's count of what became of every record sees what is wrong."""

from __future__ import annotations

from collections import Counter
from itertools import chain, repeat

import pytest

from headrace.demo import verify
from headrace.demo.folder import Staged, new_run
from headrace.settings import Settings
from headrace.topics import ensure

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def staged(project: Settings, topic: object) -> Staged:
    """The arrivals flow with topics that exist, and 100 records in its source."""
    from confluent_kafka import Producer

    for folder in ("flows", "schemas"):
        (project.project / folder).rmdir()
    with new_run(project.project) as run:
        made = run.stage("arrivals", "speed", source=f".{run.name}", sinks=f".{run.name}")
    ensure(project, made.plan.topics)
    producer = Producer(project.client(enable_idempotence=True))
    for _ in range(100):
        producer.produce(made.source, b"x")
    assert producer.flush(60) == 0
    return made


@pytest.mark.parametrize(("offsets", "lost", "doubled", "strangers"), [
    (range(100), 0, 0, 0),
    ([*range(40), *range(41, 100)], 1, 0, 0),
    ([*range(100), 7, 7], 0, 2, 0),
    ([*range(100), 100], 0, 0, 1),
    ([], 100, 0, 0)])
def test_the_counting_sees_what_is_wrong(project: Settings, staged: Staged, offsets: list[int], lost: int, doubled: int,
                                         strangers: int) -> None:
    """Verify the verifier: outputs written here by hand, with faults in them."""
    from confluent_kafka import Producer

    producer = Producer(project.client(enable_idempotence=True))
    held = [("headrace.step", b"check"), ("headrace.reasons", b'["departed: it is null"]')]
    topics = chain([staged.outputs[0], staged.quarantine], repeat(staged.outputs[1]))
    for topic, offset in zip(topics, offsets, strict=False):
        place = (0).to_bytes(4, "big") + offset.to_bytes(8, "big") + staged.source.encode()
        producer.produce(topic, b"y", headers=[("headrace.src", place), *(held if "quarantine" in topic else [])])
    assert producer.flush(60) == 0
    found = verify.tally(project, staged)
    assert (found.records_in, found.lost, found.doubled, found.strangers) == (100, lost, doubled, strangers)
    assert found.whole == (lost == doubled == strangers == 0)
    assert found.by_expectation == Counter({"departed": 1} if len(offsets) else {})
    assert found.quarantined == bool(len(offsets))
    assert found.valid == max(0, len(offsets) - 1)


def test_an_aborted_output_does_not_count(project: Settings, staged: Staged) -> None:
    """The reader is a read_committed one: what a killed worker wrote in an open transaction is no output."""
    from confluent_kafka import Producer

    producer = Producer(project.client(transactional_id=f"aborts.{staged.source}"))
    producer.init_transactions(30)
    for end in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for offset in range(100):
            place = (0).to_bytes(4, "big") + offset.to_bytes(8, "big") + staged.source.encode()
            producer.produce(staged.outputs[0], b"y", headers=[("headrace.src", place)])
        producer.flush(60)
        end(30)
    found = verify.tally(project, staged)
    assert found.whole
    assert found.valid == 100
