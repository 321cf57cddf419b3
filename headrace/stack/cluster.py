"""What this project's Kafka is made of. The first `up` settles it; it is kept beside the data until that is purged."""

from __future__ import annotations

import json
import uuid
from base64 import urlsafe_b64encode
from dataclasses import asdict, dataclass, field
from pathlib import Path

from headrace.errors import UserError
from headrace.stack.supervise import write_whole

BROKERS = (1, 3, 5)
"""Odd: of an even number of controllers one is there in vain."""
COPIES_MAX = 3
_AFRESH = ("`headrace up` without {} goes on with it; `headrace down --purge` deletes it, and the next `up` may make "
           "another")


def new_id() -> str:
    """A random one as Kafka makes them: never with a dash in front, which its tools would read as an option."""
    while (made := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made


@dataclass(frozen=True, slots=True)
class Cluster:
    brokers: int = 1
    secure: bool = False
    """TLS, users and rules of access, as secure.py makes them."""
    id: str = field(default_factory=new_id)
    """With which storage is formatted, the same on every broker."""

    @property
    def copies(self) -> int:
        """Of every topic, unless its maker says otherwise."""
        return min(COPIES_MAX, self.brokers)

    @property
    def numbers(self) -> range:
        """Kafka's node ids."""
        return range(1, self.brokers + 1)


def kept(folder: Path) -> Cluster | None:
    """The cluster whose data are in this stack's folder; one broker where an older headrace made them."""
    if (file := folder / "cluster.json").is_file():
        return Cluster(**json.loads(file.read_text()))
    return Cluster() if (folder / "kafka").is_dir() else None


def settled(folder: Path, brokers: int | None, secure: bool) -> Cluster:
    """The kept cluster, or a new one of so many brokers (by default one). Raises UserError where they disagree."""
    if brokers is not None and brokers not in BROKERS:
        raise UserError(f"a cluster of {brokers} brokers is none of {', '.join(map(str, BROKERS))}",
                        hint="3 brokers keep on when one is lost, 5 when two are")
    found = kept(folder)
    if found and brokers not in (None, found.brokers):
        raise UserError(f"the data in {folder} is that of {_count(found.brokers)}, not of {_count(brokers)}",
                        hint=_AFRESH.format("--brokers"))
    if found and secure and not found.secure:
        raise UserError(f"the data in {folder} is that of a stack without users", hint=_AFRESH.format("--secure"))
    return found or Cluster(brokers or 1, secure)


def keep(folder: Path, cluster: Cluster) -> None:
    write_whole(folder / "cluster.json", asdict(cluster))


def _count(brokers: int | None) -> str:
    return "1 broker" if brokers == 1 else f"{brokers} brokers"
