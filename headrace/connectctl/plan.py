"""Files against what runs: what is to create, to change, to delete; and doing it. The same again changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace import secrets
from headrace.connect.config import Connector
from headrace.connectctl.client import Refused
from headrace.connectctl.workers import Worker, Workers
from headrace.errors import Finding, UserError

Action = Literal["create", "change", "unchanged", "delete"]

@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done about one connector on one worker."""

    action: Action
    name: str
    worker: Worker
    wanted: Connector | None = None
    """None where it is to be deleted."""
    keys: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict, repr=False)
    """(before, after) of the keys that differ, secrets masked; None where the key is not there."""
    unseen: tuple[str, ...] = ()
    """Keys whose values the worker hides, so that they cannot be compared: `apply` sends them again."""
    state: str = ""
    """What it is told to be: as it is, or for a new one as its file says."""

    def told(self) -> dict[str, Any]:
        """For --json."""
        return {"name": self.name, "action": self.action, "worker": self.worker.url,
                "file": str(self.wanted.file) if self.wanted else None, "state": self.state,
                "changes": {key: {"before": before, "after": after} for key, (before, after) in self.keys.items()},
                "secrets_not_compared": list(self.unseen)}


def plan(connectors: Sequence[Connector], workers: Workers, *, prune: bool = False) -> list[Change]:
    """What makes the workers as the files say. Asks only. Raises UserError: two files of one name, a class nobody has.

    With `prune`, what stands on any of the workers and no file names is to be deleted.
    """
    _once(connectors)
    homes = [(connector, workers.for_file(connector)) for connector in connectors]
    there = {id(worker): worker.connectors() for worker in
             (workers.present if prune else {id(home): home for _, home in homes}.values())}
    out = [_one(connector, home, there[id(home)].get(connector.name)) for connector, home in homes]
    if prune:
        kept = {(id(home), connector.name) for connector, home in homes}
        out += [Change("delete", name, worker, None, _shown(about["info"]["config"], worker, before=True),
                       state=about["status"]["connector"]["state"])
                for worker in workers.present for name, about in sorted(there[id(worker)].items())
                if (id(worker), name) not in kept]
    return out


def _once(connectors: Sequence[Connector]) -> None:
    first: dict[str, Connector] = {}
    for one in connectors:
        if first.setdefault(one.name, one) is not one:
            raise UserError(f"{one.file} and {first[one.name].file} both name their connector “{one.name}”")


def _one(wanted: Connector, worker: Worker, about: Mapping[str, Any] | None) -> Change:
    if about is None:
        return Change("create", wanted.name, worker, wanted, _shown(wanted.keys, worker), state=wanted.state)
    running, typed = about["info"]["config"], secret_keys(worker, wanted.keys)
    unseen = tuple(key for key, value in running.items() if secrets.HIDDEN in str(value) and _hides(key, wanted, typed))
    differ = {key: (running.get(key), wanted.keys.get(key)) for key in sorted({*running, *wanted.keys})
              if running.get(key) != wanted.keys.get(key) and key not in unseen}
    state = str(about["status"]["connector"]["state"])
    keys = {key: _masked(key, pair, typed) for key, pair in differ.items()}
    return Change("change" if keys else "unchanged", wanted.name, worker, wanted, keys, unseen, state)


def _hides(key: str, wanted: Connector, typed: set[str]) -> bool:
    """Whether what the worker shows of a key could be the mask of what the file says."""
    value = wanted.keys.get(key)
    return value is not None and secrets.HIDDEN in str(secrets.shown(key, value, {*typed, key}))


def _masked(key: str, pair: tuple[str | None, str | None], typed: set[str]) -> tuple[str | None, str | None]:
    before, after = (secrets.shown(key, value, typed) for value in pair)
    if before is not None and before == after:  # two secrets that differ
        after = f"{after} (another one)"
    return before, after


def _shown(keys: Mapping[str, str], worker: Worker, *,
           before: bool = False) -> dict[str, tuple[str | None, str | None]]:
    typed = secret_keys(worker, keys)
    masked = {key: secrets.shown(key, value, typed) for key, value in sorted(keys.items())}
    return {key: (value, None) if before else (None, value) for key, value in masked.items()}


def secret_keys(worker: Worker, keys: Mapping[str, str]) -> set[str]:
    """The keys that the connector's own definition says are passwords, whatever they are called."""
    try:
        defined = worker.client.get("connector-plugins", keys["connector.class"], "config")
    except (Refused, KeyError):
        return set()  # a class it does not know by this name; the names of keys still tell most
    return {str(one["name"]) for one in defined if str(one.get("type", "")).upper() == "PASSWORD"}


def validate(connector: Connector, worker: Worker) -> list[Finding]:
    """What the worker says is wrong with the keys, by the file's lines."""
    answer = worker.client.ask("PUT", "connector-plugins", connector.cls, "config", "validate",
                               body=dict(connector.keys))
    typed = {one["value"]["name"] for one in answer["configs"]
             if str((one["definition"] or {}).get("type")).upper() == "PASSWORD"}
    hidden = secrets.Scrubber()
    hidden.learn(secrets.secrets_of(connector.keys, typed))
    return sorted(Finding(str(connector.file), connector.lines.get(one["value"]["name"], 0),
                          f"{one['value']['name']}: {hidden.text(said)}")
                  for one in answer["configs"] for said in one["value"].get("errors") or ())


def check(changes: Sequence[Change]) -> list[Finding]:
    """What the workers say is wrong with what is to be created or changed: told before anything is touched."""
    return [finding for change in changes if change.wanted is not None and change.action != "unchanged"
            for finding in validate(change.wanted, change.worker)]


def apply(change: Change) -> bool:
    """Do it; whether anything was sent. Raises Refused."""
    client, wanted = change.worker.client, change.wanted
    if change.action == "delete":
        client.ask("DELETE", "connectors", change.name)
        return True
    assert wanted is not None
    if change.action == "unchanged" and not change.unseen:
        return False
    if change.action == "create":
        client.ask("POST", "connectors", body={"name": wanted.name, "config": dict(wanted.keys),
                                               "initial_state": wanted.state})
    else:
        client.ask("PUT", "connectors", wanted.name, "config", body=dict(wanted.keys))
    return True
