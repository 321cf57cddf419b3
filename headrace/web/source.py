"""The HTTP source: a webhook that answers once records are in Kafka, or a URL that is polled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from headrace.batch import Index
from headrace.codec import AvroSchema
from headrace.connector import Pulled
from headrace.records import Column, Records, Shape
from headrace.records.records import Header
from headrace.web.bodies import maker
from headrace.web.config import HttpSourceConfig
from headrace.web.listen import Listener, Request
from headrace.web.poll import Poller
from headrace.web.seen import Seen

WAIT_S = 0.2
TEXT = Shape("string")
Stored = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


class HttpSource:
    """Exactly once where the position tells what was taken: polled by a cursor or by pages; posted with an idempotency
    key. Posted without one, a request whose answer was lost is sent again, and doubled. Without `schema` records are
    JSON objects of any kind."""

    Config: ClassVar[type[HttpSourceConfig]] = HttpSourceConfig
    wants_schema: ClassVar[bool] = True

    def __init__(self, config: HttpSourceConfig, *, project: Path) -> None:
        self.config = config
        self.schema: AvroSchema | None = None
        self.ended = False
        self.listener: Listener | None = None
        self._poller: Poller | None = None
        self._uncommitted: deque[tuple[Pulled, Sequence[Request]]] = deque()

    def open(self, stored: Stored) -> None:
        """Raises UserError where it cannot listen."""
        config = self.config
        self._make = maker(self.schema, config.topic)
        self._uncommitted.clear()
        if config.listens:
            path = config.address[2]
            listener = Listener(config, self._make, Seen(path, config.idempotency_window_ms / 1e3, stored))
            listener.start()
            self.listener = listener
        else:
            self._poller = Poller(config, stored({"url": config.url}))

    def pull(self, records_max: int) -> Pulled | None:
        """Requests are never cut: one of more records than `records_max` comes whole."""
        return self._posted(records_max) if self.listener is not None else self._polled(records_max)

    def _posted(self, records_max: int) -> Pulled | None:
        assert self.listener is not None
        requests = self.listener.take(records_max, WAIT_S)
        if not requests:
            return None
        raws = [raw for request in requests for raw in request.records]
        headers = None
        if self.config.headers:
            headers = [[(name, value, TEXT) for name, value in request.headers]
                       for request in requests for _ in request.records]
        where = self.config.address[2]
        partition, position = self.listener.remember(requests)
        pulled = self._pulled(partition, position, raws, lambda at: where, headers)
        self._uncommitted.append((pulled, requests))
        return pulled

    def _polled(self, records_max: int) -> Pulled | None:
        assert self._poller is not None, "open() first"
        part = self._poller.take(records_max)
        if part is None:
            return None
        return self._pulled({"url": self.config.url}, part.position, part.raws,
                            lambda at: f"{part.url} record {part.first + at}", None)

    def _pulled(self, partition: Mapping[str, Any], position: Mapping[str, Any], raws: Sequence[bytes],
                where: Callable[[int], str], headers: Sequence[Sequence[Header]] | None) -> Pulled:
        made = self._make(raws)
        records = [_records(self.config.topic, index, column, headers) for index, column in made.columns]
        failures = [(where(at), raws[at], reasons) for at, reasons in sorted(made.reasons.items())]
        return Pulled(partition, position, records, where=where, raw=lambda at: raws[at], failures=failures)

    def committed(self, pulled: Pulled) -> None:
        """Answers those who wait."""
        while self.listener is not None and self._uncommitted:
            one, requests = self._uncommitted.popleft()
            self.listener.settle(requests)
            if one is pulled:
                return

    def close(self) -> None:
        if self.listener is not None:
            self.listener.stop()
            self.listener = None
        if self._poller is not None:
            self._poller.close()
            self._poller = None


def _records(topic: str, index: Index, column: Column, headers: Sequence[Sequence[Header]] | None) -> Records:
    n = len(index)
    mine = None if headers is None else [headers[at] for at in index.tolist()]
    return Records(topic=topic, value=column, key=Column.nothing(n), index=index,
                   timestamps_ms=np.full(n, -1, np.int64), headers=mine)
