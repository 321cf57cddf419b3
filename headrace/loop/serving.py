"""Which versions of a model serve: told by the model topic, loaded and warmed in the background, swapped as a whole.

    headrace.models ──Follower──► wanted ──loader──► ready ──► predictions, between two batches

The topic is the authority: its last switch of a model says who is in charge. What is ready stays so until what is
wanted is loaded and has made a prediction, so that a swap costs a running flow an assignment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import Message

from headrace.codec import Decoder
from headrace.control import Switch
from headrace.errors import HeadraceError, Retriable
from headrace.follow import Follower
from headrace.registry import Registry
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.loop.models import Loaded, ModelStore

log = logging.getLogger("headrace.serving")
RETRY_S = 2.0
KEPT_MAX = 4
"""Loaded versions kept, the latest used: those that serve, and those before them, for a rollback at once."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Who is in charge: `champion` serves all but the `share` of the keys that `challenger` has, as a canary (heard)
    or a shadow (asked beside). `epoch` is the offset of the switch that made it so, -1 before the first."""

    champion: str | None = None
    challenger: str | None = None
    mode: str = "full"
    share: float = 0.0
    epoch: int = -1

    def after(self, switch: Switch, epoch: int) -> Deployment:
        """What a switch makes of it."""
        if epoch <= self.epoch:
            return self
        champion = self.champion or switch.previous  # compaction may have taken the switch that says so
        if switch.mode in ("canary", "shadow"):
            return Deployment(champion, switch.to, switch.mode, switch.share, epoch)
        if switch.mode == "off":
            return Deployment(champion, epoch=epoch)
        return Deployment(switch.to, epoch=epoch)

    def versions(self) -> list[str]:
        return [version for version in (self.champion, self.challenger) if version]


@dataclass(frozen=True, slots=True)
class Serving:
    """A deployment whose versions are loaded and warm."""

    deployment: Deployment = Deployment()
    loaded: Mapping[str, Loaded] = field(default_factory=dict)

    @property
    def champion(self) -> Loaded | None:
        return self.loaded[self.deployment.champion] if self.deployment.champion else None

    @property
    def challenger(self) -> Loaded | None:
        return self.loaded[self.deployment.challenger] if self.deployment.challenger else None


class Server:
    """Follows one model. `check(loaded)` raises UserError for a version that cannot serve here: it is not swapped in,
    and the one before stays."""

    def __init__(self, settings: Settings, model: str, *, topic: str, store: Callable[[], ModelStore],
                 check: Callable[[Loaded], None] = lambda loaded: None) -> None:
        self.model, self._store, self._check = model, store, check
        self._registry = Registry(settings.registry_client())
        self._decoder = Decoder(Switch.schema(), self._registry.schema)
        self._follower = Follower(settings, topic, self._seen)
        self._wanted = Deployment()
        self._serving = Serving()
        self._trouble: str | None = None
        self._told = ""
        self._changed = threading.Condition()
        self._closed = False
        self._loader = threading.Thread(target=self._load, name=f"load {model}", daemon=True)

    def start(self) -> Server:
        """Follow from the topic's beginning. Raises Retriable when that is not possible yet."""
        self._follower.start()
        self._loader.start()
        return self

    def now(self) -> Serving:
        """What serves: one value, taken once a batch."""
        return self._serving

    def settled(self, timeout_s: float = 60.0) -> Serving:
        """What serves once every switch committed so far is carried out. Raises Retriable when that takes too long."""
        self._follower.settle(timeout_s)
        with self._changed:
            carried_out = self._changed.wait_for(lambda: self._serving.deployment == self._wanted or self._trouble,
                                                 timeout_s)
        if not carried_out or self._serving.deployment != self._wanted:
            raise Retriable(f"{self.model}: {self._trouble or 'the version wanted is still being loaded'}",
                            retry_after_s=RETRY_S)
        return self._serving

    def _seen(self, messages: list[Message]) -> None:
        """Switches, in order; other models' are passed over."""
        key = self.model.encode()
        mine = [message for message in messages if message.key() == key and message.value() is not None]
        decoded = self._decoder.decode([message.value() for message in mine])
        index = range(len(mine)) if decoded.index is None else decoded.index.tolist()
        for at, record in zip(index, decoded.rows.to_pylist(), strict=True):
            with self._changed:
                self._wanted = self._wanted.after(Switch.from_record(record), int(mine[at].offset() or 0))
                self._trouble = None
                self._changed.notify_all()

    def _load(self) -> None:
        kept: dict[str, Loaded] = {}
        store: ModelStore | None = None
        while True:
            with self._changed:
                while self._serving.deployment == self._wanted and not self._closed:
                    self._changed.wait()
                wanted = self._wanted
            if self._closed:
                return
            try:
                store = store or self._store()
                begun = time.perf_counter()
                for version in wanted.versions():
                    found = kept.pop(version, None) or store.load(self.model, version)
                    self._check(found)
                    kept[version] = found  # the last in the dict is the latest used
                serving = Serving(wanted, {version: kept[version] for version in wanted.versions()})
            except Exception as error:  # a broken artifact raises anything, and a later switch must find us alive
                said = error if isinstance(error, HeadraceError) else repr(error)
                self._say(f"version {', '.join(wanted.versions())} cannot serve: {said}", wanted)
                continue
            with self._changed:
                self._serving, self._trouble, self._told = serving, None, ""
                self._changed.notify_all()
            log.info("model in charge", extra={"model": self.model, "version": wanted.champion, "epoch": wanted.epoch,
                                               "challenger": wanted.challenger, "mode": wanted.mode,
                                               "load_s": round(time.perf_counter() - begun, 3)})
            for version in list(kept)[:-KEPT_MAX]:
                if version not in wanted.versions():
                    del kept[version]

    def _say(self, trouble: str, wanted: Deployment) -> None:
        """Tell of it, and wait before another try, unless something else is wanted by now."""
        if trouble != self._told:
            self._told = trouble
            log.warning("model not swapped", extra={"model": self.model, "reason": trouble})
        with self._changed:
            if self._wanted == wanted:
                self._trouble = trouble
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._wanted != wanted or self._closed, RETRY_S)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._follower.close()
