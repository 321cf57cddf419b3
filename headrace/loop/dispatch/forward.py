"""A recipe without a flow: reads headrace.retrain and hands each event to a dispatcher, then commits its offset.

    python -m headrace.loop.dispatch.forward --to airflow --config '{"url": "http://airflow:8080", "username": "loop"}'

One line of JSON an event on stdout. The offset is committed only once the other side has the run (Airflow: 200, or 409
and found): who is killed in between reads the event again, and its repeat finds the run that is there. Results do not
come back as events; for that, and for priorities and limits, use the step `dispatch` in a flow. One of the two, not
both.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headrace.codec import Decoder
from headrace.control import Retrain
from headrace.errors import BrokerError, HeadraceError, Retriable
from headrace.loop.dispatch.base import Dispatcher, Refused, Resources, ResourcesConfig, dispatcher
from headrace.loop.dispatch.queue import QueueConfig, backoff_s
from headrace.registry import Registry
from headrace.secrets import scrubbed
from headrace.settings import Settings, find_project, load

POLL_S = 0.5
SESSION_MS = 10_000
"""After so long a killed one's partitions are the next one's."""
PATIENCE = QueueConfig.model_validate({"backoff_s": 2, "backoff_s_max": 60})
Say = Callable[[dict[str, Any]], None]


def hand_over(to: Dispatcher, request: Retrain, resources: Resources, wait: Callable[[float], bool]) -> dict[str, Any]:
    """Submit until it is known where the run is, or that there will be none. `wait(s)` tells whether to go on;
    raises the Retriable in hand when not."""
    attempt = 0
    while True:
        attempt += 1
        try:
            status = to.submit(request, resources)
            return {"trigger": request.id, "model": request.model, "state": status.state, "run": status.run,
                    "attempts": attempt}
        except Refused as error:
            return {"trigger": request.id, "model": request.model, "state": "refused", "reason": str(error),
                    "attempts": attempt}
        except Retriable as error:
            print(f"forward: {error}", file=sys.stderr, flush=True)
            if not wait(max(error.retry_after_s, backoff_s(request.id, attempt, PATIENCE))):
                raise


class Forward:
    """A consumer of Retrain events that commits behind itself, one event at a time."""

    def __init__(self, settings: Settings, registry: Registry, topic: str, group: str) -> None:
        from confluent_kafka import Consumer

        schema = Retrain.schema()
        self._decoder = Decoder(schema, registry.schema)
        self._consumer: Any = Consumer(settings.client(
            group_id=group, isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS))
        self._consumer.subscribe([topic])
        self.ending = False

    def run(self, to: Dispatcher, resources: Resources, say: Say, seconds: float | None = None) -> None:
        """Until `stop`, or for so long. Raises BrokerError, and Retriable when it ends while the other side is down:
        that event is read again."""
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while not self.ending and (end is None or time.monotonic() < end):
                message = self._consumer.poll(POLL_S)
                if message is None:
                    continue
                if message.error():
                    if message.error().fatal():
                        raise BrokerError(f"reading requests: {message.error().str()}")
                    continue
                for request in self._requests(message, say):
                    say(hand_over(to, request, resources, lambda s: self._pause(s, end)))
                self._consumer.commit(message=message, asynchronous=False)
        finally:
            self._consumer.close()

    def stop(self, *_: object) -> None:
        self.ending = True

    def _requests(self, message: Any, say: Say) -> list[Retrain]:
        """The event in the record; none, and a line that says so, where it cannot be read."""
        decoded = self._decoder.decode([message.value()])
        if decoded.rows.num_rows:
            return [Retrain.from_record(row) for row in decoded.rows.to_pylist()]
        say({"state": "unreadable", "at": f"{message.topic()}/{message.partition()}@{message.offset()}",
             "reason": "; ".join(why for _, why in decoded.rejects)})
        return []

    def _pause(self, seconds: float, end: float | None) -> bool:
        """Wait without leaving the group: partitions paused, polls going on. Whether there is time for another try."""
        until = time.monotonic() + seconds
        self._consumer.pause(self._consumer.assignment())
        while time.monotonic() < until and not self.ending and (end is None or time.monotonic() < end):
            self._consumer.poll(POLL_S)
        self._consumer.resume(self._consumer.assignment())
        return not self.ending and (end is None or time.monotonic() < end)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM, or for --seconds."""
    parser = argparse.ArgumentParser(prog="python -m headrace.loop.dispatch.forward",
                                     description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", default="airflow", help="the dispatcher: %(default)s")
    parser.add_argument("--config", default="{}", help="its config, JSON")
    parser.add_argument("--resources", default="{}", help='JSON, e.g. {"memory_mb": 2048}')
    parser.add_argument("--topic", default=Retrain.home, help="%(default)s")
    parser.add_argument("--group", default="headrace-forward", help="consumer group: %(default)s")
    parser.add_argument("--seconds", type=float, help="end after so long; never, if left out")
    parser.add_argument("--project", type=Path, help="project folder, found from here if left out")
    asked = parser.parse_args(argv)
    try:
        settings = load(asked.project or find_project())
        to = dispatcher(asked.to, json.loads(asked.config), project=settings.project)
        resources = ResourcesConfig(**json.loads(asked.resources)).resources()
        forward = Forward(settings, Registry(settings.registry_client()), asked.topic, asked.group)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, forward.stop)
        forward.run(to, resources, lambda said: print(json.dumps(said), flush=True), asked.seconds)
    except Retriable as error:
        print(f"forward: {error}", file=sys.stderr)
        return 0 if asked.seconds else error.exit_code  # at the end of its time: the next one goes on
    except (HeadraceError, ValueError) as error:
        print(f"forward: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    return 0


if __name__ == "__main__":
    sys.stderr = scrubbed(sys.stderr)
    sys.exit(main())
