"""What a dispatcher is: the contract, the statuses and resources it speaks in, and the table of those there are.

    submit(request)  → exactly one run somewhere, however often it is called with the same `request.id`
    poll(id, run)    → what became of it
    cancel(id, run)  → it is to stop; no error when it is over or was never there

Whoever calls keeps the state (`processors/dispatch.py`), and may call anything again after a crash: idempotence is the
dispatcher's part of the bargain, never the caller's.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError

from headrace.config import Config
from headrace.control import Retrain
from headrace.errors import ConfigError, Finding, UserError

State = Literal["unknown", "queued", "running", "succeeded", "failed"]
OVER: frozenset[str] = frozenset({"succeeded", "failed"})
"""The states that no later poll changes."""
REASON_CHARACTERS_MAX = 2_000
"""A reason travels in an event; the rest is in the run's own log."""


class Refused(UserError):
    """This request will never run here: it is wrong, or asks for what is not there. Trying again does not help."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run may take. None: as much as there is. `cpu` counts cores, `memory_mb` MiB (2**20 bytes), `gpu` whole
    devices; `seconds_max` is wall-clock time, after which the run is ended and failed."""

    cpu: float | None = None
    memory_mb: int | None = None
    gpu: int = 0
    seconds_max: int = 3600


class ResourcesConfig(Config):
    """What a training run may take."""

    cpu: float | None = Field(None, gt=0, description="Processor cores, e.g. 2 or 0.5; as many as there are, if not "
                              "said.")
    memory_mb: int | None = Field(None, ge=16, description="Memory in MiB; a run that takes more is ended and failed.")
    gpu: int = Field(0, ge=0, description="GPUs, whole ones; a dispatcher that has fewer refuses the request.")
    seconds_max: int = Field(3600, ge=1, description="Wall-clock seconds after which the run is ended and failed.")

    def resources(self) -> Resources:
        return Resources(**self.model_dump())


@dataclass(frozen=True, slots=True)
class Status:
    """How a run stands. `unknown`: nobody there has heard of it, so it may be submitted (again).

    `run` is its id with whoever runs it. `result` is what the training said of itself, a JSON object: mlflow_run,
    version, candidates, data_digest, metrics, cpu_s, peak_bytes, git_commit, lock_digest …; None until it succeeded,
    or where the dispatcher cannot carry results.
    """

    state: State
    run: str | None = None
    reason: str = ""
    result: Mapping[str, Any] | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER


class Dispatcher(Protocol):
    """Runs trainings somewhere. Built by `dispatcher`; its constructor touches neither network nor disk."""

    name: str

    def submit(self, request: Retrain, resources: Resources) -> Status:
        """See that there is exactly one run for `request.id`, and say how it stands. Idempotent by `request.id`: a
        repeat, at once or after a crash, finds the run there is. Raises Retriable when it cannot be known or done now
        (call again), and Refused when it never will be."""
        ...

    def poll(self, trigger: str, run: str | None) -> Status:
        """How the run of that trigger stands. `run` is what `submit` gave, None if that is not known any more.
        Raises Retriable when it cannot be known now."""
        ...

    def cancel(self, trigger: str, run: str | None) -> None:
        """End the run, if it is there and not over. Raises Retriable when that cannot be said now."""
        ...


KINDS: Mapping[str, tuple[str, str, str]] = {
    "local": ("headrace.loop.dispatch.local", "LocalConfig", "Local"),
    "webhook": ("headrace.loop.dispatch.webhook", "WebhookConfig", "Webhook"),
    "airflow": ("headrace.loop.dispatch.airflow", "AirflowConfig", "Airflow"),
    "kubernetes": ("headrace.loop.dispatch.kubernetes", "KubernetesConfig", "Kubernetes"),
    "kubeflow": ("headrace.loop.dispatch.kubeflow", "KubeflowConfig", "Kubeflow"),
}
"""Name → module, its Config, its class: `class(config, project=…)`. Imported when asked for."""


def config_class(kind: str) -> type[Config]:
    """The Config of a kind of dispatcher. Raises UserError when there is no such kind."""
    if kind not in KINDS:
        raise UserError(f"there is no dispatcher “{kind}”", hint=f"there are {', '.join(KINDS)}")
    module, config, _ = KINDS[kind]
    found: type[Config] = getattr(importlib.import_module(module), config)
    return found


def dispatcher(kind: str, config: Mapping[str, Any], *, project: Path | None = None) -> Dispatcher:
    """The dispatcher of that name. Paths in `config` are relative to `project` (the working folder, if not said).

    Raises UserError for an unknown kind, ConfigError for a config that does not fit, MissingExtra when its client is
    not installed (some say so only at the first call).
    """
    kinds_config = config_class(kind)
    try:
        checked = kinds_config(**config)
    except ValidationError as error:
        raise ConfigError([Finding(f"dispatcher {kind}", 0, f"{'.'.join(map(str, each['loc']))}: {each['msg']}")
                           for each in error.errors()]) from error
    module, _, name = KINDS[kind]
    made: Dispatcher = getattr(importlib.import_module(module), name)(checked, project=project or Path())
    return made


def request_from_json(text: str) -> Retrain:
    """The event that `Retrain.to_json()` wrote; unknown keys, of later versions, are passed over. Raises UserError."""
    try:
        written = json.loads(text)
        known = {each.name: written[each.name] for each in fields(Retrain) if each.name in written}
        for moment in ("at", "window_start", "window_end"):
            known[moment] = _moment(known[moment])
        return Retrain(**known)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"this is no retrain request: {error!r}",
                        hint="it is the JSON that Retrain.to_json() writes") from error


def _moment(written: str | None) -> datetime | None:
    if written is None:
        return None
    read = datetime.fromisoformat(written)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def tail(text: str, characters: int = REASON_CHARACTERS_MAX) -> str:
    """The end of a log, as a reason: its last characters, whole lines where that is possible."""
    text = text.strip()
    if len(text) <= characters:
        return text
    cut = text[-characters:]
    return "…" + (cut.partition("\n")[2] or cut)
