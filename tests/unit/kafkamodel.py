"""A model of Kafka's brokers, as far as a commit depends on them: logs, transactions, offsets, a group.

Each method is a request, and happens at once; what a network does to requests and answers is the clients' business
(fakeclients.py). A transaction ends as librdkafka ends it, by EndTxn v1: the epoch does not rise, so a request that
comes late ends whatever is open under the same epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError

Place = tuple[str, int]
TRANSACTION_TIMEOUT_S = 15.0


class Refused(Exception):
    """What a broker answers instead of doing it: a code of KafkaError."""

    def __init__(self, code: int) -> None:
        super().__init__(KafkaError(code).name())
        self.code = code


class Clock:
    """Time, for the broker and for every module that imports `time`: it goes on when somebody waits."""

    CLOCK_MONOTONIC = 1

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.passed: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    time = perf_counter = monotonic

    def clock_gettime(self, clock: int) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.passed()


@dataclass(slots=True, eq=False)
class Txn:
    """A transaction; `outcome` is None while it is open."""

    id: str
    begun_s: float
    outcome: bool | None = None
    touched: set[Place] = field(default_factory=set)
    offsets: dict[Place, tuple[int, str | None]] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Entry:
    """A record, or the marker that ends a transaction. One of no transaction counts at once."""

    key: bytes | None = None
    value: bytes | None = None
    timestamp_ms: int = 0
    txn: Txn | None = None
    marker: bool = False

    @property
    def counts(self) -> bool:
        return not self.marker and (self.txn is None or self.txn.outcome is True)


class Log(list[Entry]):
    """A partition; an entry's offset is its index."""

    def end(self, isolation: str = "read_committed") -> int:
        """The last stable offset, or, uncommitted, the end."""
        if isolation == "read_committed":
            for offset, entry in enumerate(self):
                if entry.txn is not None and entry.txn.outcome is None and not entry.marker:
                    return offset
        return len(self)

    def committed(self) -> list[Entry]:
        """What a read_committed reader sees."""
        return [entry for entry in self[:self.end()] if entry.counts]


@dataclass(slots=True)
class Owner:
    """What the transaction coordinator knows of a transactional id."""

    epoch: int = -1
    open: Txn | None = None
    last: bool | None = None
    """How the last transaction of this epoch ended; None before there was one."""


class Broker:
    """All of them as one. `ended` is called after each transaction that was ended."""

    def __init__(self, clock: Clock, partitions: Mapping[str, int]) -> None:
        self.clock = clock
        self.logs: dict[Place, Log] = {(t, p): Log() for t, n in partitions.items() for p in range(n)}
        self.owners: dict[str, Owner] = {}
        self.group = Group([place for place in self.logs if place[0] == "in"])
        self.ended: Callable[[Txn], None] = lambda txn: None
        clock.passed = self._timed_out

    def init(self, id: str) -> int:
        """InitProducerId: what is open is aborted, and older producers are fenced."""
        owner = self.owners.setdefault(id, Owner())
        if owner.open is not None:
            self._end(owner, False)
        owner.epoch, owner.last = owner.epoch + 1, None
        return owner.epoch

    def _owner(self, id: str, epoch: int, code: int) -> Owner:
        owner = self.owners[id]
        if owner.epoch != epoch:
            raise Refused(code)
        return owner

    def _open(self, id: str, epoch: int, code: int) -> Txn:
        owner = self._owner(id, epoch, code)
        if owner.open is None:
            owner.open = Txn(id, self.clock.now_s)
        return owner.open

    def add(self, id: str, epoch: int, place: Place, records: Sequence[Entry]) -> int:
        """AddPartitionsToTxn and Produce; the offset of the last."""
        txn = self._open(id, epoch, KafkaError.INVALID_PRODUCER_EPOCH)
        txn.touched.add(place)
        log = self.logs[place]
        log.extend(Entry(r.key, r.value, r.timestamp_ms, txn) for r in records)
        return len(log) - 1

    def add_offsets(self, id: str, epoch: int, member: Metadata, offsets: Mapping[Place, tuple[int, str | None]]
                    ) -> None:
        """AddOffsetsToTxn and TxnOffsetCommit."""
        txn = self._open(id, epoch, KafkaError.PRODUCER_FENCED)
        self.group.validate(member, transactional=True)
        txn.offsets.update(offsets)

    def end(self, id: str, epoch: int, commit: bool) -> None:
        """EndTxn v1."""
        owner = self._owner(id, epoch, KafkaError.PRODUCER_FENCED)
        if owner.open is not None:
            self._end(owner, commit)
        elif owner.last is not commit:
            raise Refused(KafkaError.INVALID_TXN_STATE)

    def _end(self, owner: Owner, outcome: bool) -> None:
        txn, owner.open, owner.last = owner.open, None, outcome
        assert txn is not None
        txn.outcome = outcome
        for place in sorted(txn.touched):
            self.logs[place].append(Entry(txn=txn, marker=True))
        if outcome:
            self.group.offsets.update(txn.offsets)
        self.ended(txn)

    def time_out(self, id: str) -> None:
        """The coordinator aborts what is open, and fences who has it."""
        owner = self.owners[id]
        self._end(owner, False)
        owner.epoch, owner.last = owner.epoch + 1, None

    def _timed_out(self) -> None:
        for id, owner in self.owners.items():
            if owner.open is not None and self.clock.now_s - owner.open.begun_s > TRANSACTION_TIMEOUT_S:
                self.time_out(id)

    def open_for(self, places: Sequence[Place]) -> list[str]:
        """Ids whose open transactions hold offsets of these partitions: until they end, those are not stable."""
        return [id for id, owner in self.owners.items()
                if owner.open is not None and not owner.open.offsets.keys().isdisjoint(places)]


@dataclass(frozen=True, slots=True)
class Metadata:
    """ConsumerGroupMetadata: who says so, and since which generation."""

    member: str
    instance: str | None
    generation: int


@dataclass(slots=True, eq=False)
class Member:
    id: str
    instance: str | None
    joined: bool = True
    generation: int = -1
    share: list[Place] = field(default_factory=list)


class Group:
    """A consumer group of the classic protocol, with eager rebalances and static members."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self.generation = 0
        self.preparing = False
        self.members: dict[str, Member] = {}
        self.offsets: dict[Place, tuple[int, str | None]] = {}
        self._named = 0

    def _of(self, instance: str | None) -> Member | None:
        return next((m for m in self.members.values() if instance and m.instance == instance), None)

    def join(self, instance: str | None) -> Member:
        """A new member. A static one that is there takes the place of its older self, whose id is fenced from then."""
        self._named += 1
        member = Member(f"m{self._named}", instance)
        before = self._of(instance)
        if before is not None:
            del self.members[before.id]
        self.members[member.id] = member
        if before is not None and not self.preparing:
            member.generation, member.share = before.generation, before.share
        else:
            self._prepare()
            self.rejoin(member)
        return member

    def _prepare(self) -> None:
        self.preparing = True
        for member in self.members.values():
            member.joined = False

    def rejoin(self, member: Member) -> None:
        """The last of them to come begins the next generation."""
        member.joined = True
        self._complete()

    def _complete(self) -> None:
        if not self.preparing or not all(m.joined for m in self.members.values()):
            return
        self.preparing, self.generation = False, self.generation + 1
        members = sorted(self.members.values(), key=lambda m: m.instance or m.id)
        for at, member in enumerate(members):
            member.generation = self.generation
            member.share = list(self.places[at::len(members)])

    def kick(self, id: str) -> None:
        """Its session is over, or it took too long between two polls."""
        del self.members[id]
        if self.preparing:
            self._complete()
        elif self.members:
            self._prepare()

    def rebalance(self) -> None:
        if self.members and not self.preparing:
            self._prepare()

    def validate(self, who: Metadata, *, transactional: bool) -> None:
        """Whether these offsets are taken, as ClassicGroup.validateOffsetCommit has it: a transaction without a member,
        an instance or a generation is."""
        if who.generation < 0 and (not self.members or (not who.member and not who.instance and transactional)):
            return
        if who.instance is not None:
            known = self._of(who.instance)
            if known is None:
                raise Refused(KafkaError.UNKNOWN_MEMBER_ID)
            if known.id != who.member:
                raise Refused(KafkaError.FENCED_INSTANCE_ID)
        if who.member not in self.members:
            raise Refused(KafkaError.UNKNOWN_MEMBER_ID)
        if who.generation != self.generation:
            raise Refused(KafkaError.ILLEGAL_GENERATION)
