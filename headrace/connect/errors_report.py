"""What becomes of a bad record: the end of its task, a line in the log, a dead letter, by the keys errors.*

Kafka Connect's, but for this: the dead-letter topic takes records of every stage, those that a sink refuses and those
of sources included; and where no dead-letter topic is named the log is told even without errors.log.enable.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.batch import Headers, Outgoing
from headrace.connect.spec import Spec
from headrace.errors import UserError
from headrace.secrets import KNOWN
from headrace.topics import TopicPlan

log = logging.getLogger("headrace.connect")
PREFIX = "__connect.errors."
EXCEPTION = "org.apache.kafka.connect.errors.DataException"
"""What Kafka Connect's converters and transforms raise for a bad record."""
SHOWN_MAX = 20
BYTES_MAX = 10 << 20
"""max.message.bytes of a dead-letter topic that we create: oversized records end there."""
ROOM_BYTES = 65_536
LOGGED_BYTES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One record that goes no further, and as what it came."""

    stage: str
    by: str
    reasons: Sequence[str]
    where: str
    """For people: "a.csv:12", "flights/3@1042"."""
    value: bytes | None
    key: bytes | None = None
    headers: Headers | None = None
    timestamp_ms: int = 0
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    """Of a sink's: where it was read."""


class Errors:
    """A task's dealings with bad records."""

    def __init__(self, spec: Spec, number: int) -> None:
        self.spec, self.number, self.common = spec, number, spec.common
        headers = self.common.dead_letters_headers
        self.with_headers = not spec.java if headers is None else headers
        enabled = self.common.errors_log_enable
        self.logged = self.common.dead_letters is None if enabled is None else enabled

    @property
    def plans(self) -> list[TopicPlan]:
        """The dead-letter topic, if there is one."""
        if not self.common.dead_letters:
            return []
        return [TopicPlan(self.common.dead_letters, 1, {"max.message.bytes": str(BYTES_MAX)},
                          self.common.dead_letters_replication)]

    def judge(self, bad: Sequence[Rejected]) -> list[Outgoing]:
        """The dead letters to write. Raises UserError with errors.tolerance=none."""
        if not bad:
            return []
        if self.common.errors_tolerance == "none":
            self._tell(bad[:1] if self.common.errors_log_enable else ())
            raise UserError(KNOWN.text(f"{bad[0].where}: {'; '.join(bad[0].reasons)}"), hint=self._hint(bad[0]))
        if self.logged:
            self._tell(bad)
        if not self.common.dead_letters:
            return []
        most = BYTES_MAX - ROOM_BYTES
        return [Outgoing(self.common.dead_letters, [one.value[:most] if one.value else one.value for one in bad],
                         [one.key for one in bad], [max(0, one.timestamp_ms) for one in bad],
                         [self.headers(one) for one in bad])]

    def _hint(self, first: Rejected) -> str:
        mend = "mend the file, or set" if first.offset is None else "set"
        return f"its batch was not written; {mend} errors.tolerance=all and errors.deadletterqueue.topic.name"

    def headers(self, one: Rejected) -> Headers:
        """The record's own, and Kafka Connect's; of a source's record ours, too, which say where it came from."""
        own = list(one.headers or ())
        if not self.with_headers:
            return own
        said = KNOWN.text("; ".join(one.reasons))
        texts = {"topic": one.topic, "partition": one.partition, "offset": one.offset,
                 "connector.name": self.spec.name, "task.id": self.number, "stage": one.stage, "class.name": one.by,
                 "exception.class.name": EXCEPTION, "exception.message": said,
                 "exception.stacktrace": f"{EXCEPTION}: {said}\n\tat {one.by}\n"}
        own += [(PREFIX + name, str(text).encode()) for name, text in texts.items() if text is not None]
        if one.offset is None:
            own += [("headrace.file", one.where.encode()),
                    ("headrace.reasons", KNOWN.text(json.dumps(list(one.reasons), ensure_ascii=False)).encode())]
        return own

    def _tell(self, bad: Sequence[Rejected]) -> None:
        for one in bad[:SHOWN_MAX]:
            shown = {} if not self.common.errors_log_include_messages or one.value is None else {
                "key": repr(one.key), "raw": repr(one.value[:LOGGED_BYTES])}
            log.warning("rejected", extra={
                "connector": self.spec.name, "task": self.number, "stage": one.stage, "class": one.by,
                "where": one.where, "reasons": [KNOWN.text(reason) for reason in one.reasons], **shown})
        if len(bad) > SHOWN_MAX:
            log.warning("rejected more in this batch", extra={"connector": self.spec.name, "task": self.number,
                                                              "more": len(bad) - SHOWN_MAX})
