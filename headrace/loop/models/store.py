"""ModelStore: the models, versions and aliases of one MLflow, and versions loaded from it.

An alias follows epochs (offsets in headrace.models), one tag each: tags of different epochs cannot overwrite each
other, the greatest is in force, and MLflow's own alias is brought to it. Whoever reads through here reads the tags, and
is right even while two writers are at it, or after one died between the tag and the alias.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.errors import UserError
from headrace.loop.models import artifact
from headrace.loop.models.artifact import Loaded
from headrace.loop.models.client import NoSuchModel, asking, connect, embedded_uri, is_server, shown
from headrace.loop.models.record import VERSION_CANDIDATE, VERSION_TRIGGER, Draft, Ledger, Logged

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_.~+-]{1,250}")
EPOCH_TAG = "headrace.epoch."
HISTORY_MAX = 50
"""Epochs of an alias that are kept; older ones are in headrace.models and in the audit topic."""
PAGE = 200
VERSIONS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version. `trigger` and `candidate` are None for one that headrace did not register."""

    model: str
    version: str
    trigger: str | None
    candidate: str | None
    mlflow_run: str | None
    at: datetime
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, order=True)
class Promotion:
    """An alias was given to a version. `epoch` is the switch's offset in headrace.models."""

    epoch: int
    alias: str
    version: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ModelStore:
    """One MLflow. Every method raises StoreUnreachable when it does not answer."""

    uri: str
    folder: Path
    client: MlflowClient

    @contextmanager
    def _asking(self, missing: str = "") -> Iterator[None]:
        with asking(self.uri, missing):
            yield

    def log_run(self, trigger: str, model: str, *, spec: Mapping[str, Any], metrics: Mapping[str, float],
                facts: Mapping[str, Any], models: Mapping[str, Any], references: Mapping[str, Mapping[str, Any]],
                example: pa.Table | pa.RecordBatch) -> Logged:
        """One run and one version a candidate for this trigger, however often and by however many it is called.

        `models` is candidate → fitted scikit-learn pipeline, `references` candidate → what later data and predictions
        are held against, `example` some rows of exactly the features; `metrics` are named `<candidate>.<measure>`;
        the rest are JSON values. Whoever is not the first gets what the first logged. Raises UserError when a pipeline
        cannot be kept.
        """
        for what, name in (("trigger id", trigger), ("model name", model)):
            if not NAME.fullmatch(name):
                raise UserError(f"“{name}” is no {what}: it may have letters, digits and . _ ~ + -, up to 250")
        table = example if isinstance(example, pa.Table) else pa.Table.from_batches([example])
        draft = Draft(trigger, model, spec, metrics, facts, models, references, table)
        with self._asking():
            return Ledger(self.client, self.uri, self.folder).write(draft)

    def logged(self, trigger: str, model: str) -> Logged | None:
        """What `log_run` made for a trigger, when it is complete."""
        with self._asking():
            return Ledger(self.client, self.uri, self.folder).find(model, trigger)

    def load(self, model: str, version: str) -> Loaded:
        """A version (or an alias) in memory, after one prediction. Raises NoSuchModel, and UserError for a model in
        pickle's format or of types that are not trusted."""
        number = self.resolve(model, version)
        with self._asking(f"{model} has no version {number}"):
            source = self.client.get_model_version_download_uri(model, number)
            if not is_server(self.uri) and (here := Path(source.removeprefix("file://"))).is_dir():
                return artifact.load(here, model, number)
            from mlflow.artifacts import download_artifacts

            with tempfile.TemporaryDirectory() as folder:
                files = download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=self.uri)
                return artifact.load(Path(files), model, number)

    def resolve(self, model: str, wanted: str) -> str:
        """The version that a version or an alias means. Raises NoSuchModel."""
        if wanted.isdigit():
            with self._asking(f"{model} has no version {wanted}"):
                return str(self.client.get_model_version(model, wanted).version)
        found = self._registered(model)
        latest = _in_force(found.tags, wanted)
        if latest is not None:
            return latest.version
        if wanted in found.aliases:
            return str(found.aliases[wanted])
        raise NoSuchModel(f"no version of {model} is “{wanted}”", hint=f"`headrace models show {model}` shows its "
                                                                       "versions and aliases")

    def set_alias(self, model: str, alias: str, version: str, epoch: int) -> bool:
        """Give `alias` to `version` as of `epoch`: an offset that rises, one for each switch. False when a later epoch
        is in force. Calling it again changes nothing. Raises NoSuchModel."""
        number = self.resolve(model, version)
        before = _in_force(self._registered(model).tags, alias)
        if before is None or before.epoch < epoch:
            text = json.dumps({"version": number, "at": datetime.now(UTC).isoformat(timespec="milliseconds")})
            with self._asking(f"there is no model {model}"):
                self.client.set_registered_model_tag(model, f"{EPOCH_TAG}{alias}.{epoch}", text)
        return self._follow(model, alias) == epoch

    def _follow(self, model: str, alias: str) -> int:
        """Bring MLflow's alias to the version of the greatest epoch, which is given; look again after having written,
        because another writer may have done the same with an older view."""
        while True:
            found = self._registered(model)
            latest = _in_force(found.tags, alias)
            assert latest is not None, "whoever follows has written an epoch"
            if str(found.aliases.get(alias)) == latest.version:
                self._prune(found, alias)
                return latest.epoch
            with self._asking(f"{model} has no version {latest.version}"):
                self.client.set_registered_model_alias(model, alias, latest.version)

    def _prune(self, found: RegisteredModel, alias: str) -> None:
        for old in _promotions(found.tags, alias)[:-HISTORY_MAX]:
            with self._asking():
                self.client.delete_registered_model_tag(found.name, f"{EPOCH_TAG}{alias}.{old.epoch}")

    def history(self, model: str, alias: str | None = None) -> list[Promotion]:
        """The last promotions, oldest first, of an alias or of all. Raises NoSuchModel."""
        return _promotions(self._registered(model).tags, alias)

    def models(self) -> list[str]:
        """The names of all registered models."""
        with self._asking():
            return sorted(each.name for each in _pages(self.client.search_registered_models))

    def versions(self, model: str) -> list[Version]:
        """The versions, newest first. Raises NoSuchModel."""
        tags = self._registered(model)
        aliases = {name: str(number) for name, number in tags.aliases.items()}
        aliases |= {each.alias: each.version for each in _promotions(tags.tags)}  # in the order of their epochs
        with self._asking():
            found = list(_pages(self.client.search_model_versions, f"name = '{model}'"))
            runs = {run: self.client.get_run(run).data.metrics for run in {v.run_id for v in found if v.run_id}}
        return sorted((_version(v, aliases, runs.get(v.run_id, {})) for v in found), key=lambda v: -int(v.version))

    def facts(self, model: str, version: str) -> Logged | None:
        """What was logged with a version; None for one that headrace did not register. Raises NoSuchModel."""
        number = self.resolve(model, version)
        with self._asking(f"{model} has no version {number}"):
            found = self.client.get_model_version(model, number)
            if VERSION_TRIGGER not in found.tags:
                return None
            return Ledger(self.client, self.uri, self.folder).read(str(found.run_id))

    def compare(self, model: str, one: str, other: str) -> dict[str, dict[str, tuple[Any, Any]]]:
        """{"metrics": {name: (one's, other's)}, "facts": those that differ, likewise}. None where one has none."""
        pair = [(self.facts(model, each), self._candidate(model, each)) for each in (one, other)]
        metrics = [_own(logged.metrics, candidate) if logged else {} for logged, candidate in pair]
        facts: list[dict[str, Any]] = [dict(logged.facts) | {"candidate": candidate} if logged else {}
                                       for logged, candidate in pair]
        return {"metrics": {name: (metrics[0].get(name), metrics[1].get(name)) for name in sorted({*metrics[0],
                                                                                                  *metrics[1]})},
                "facts": {name: (facts[0].get(name), facts[1].get(name)) for name in sorted({*facts[0], *facts[1]})
                          if facts[0].get(name) != facts[1].get(name)}}

    def _candidate(self, model: str, version: str) -> str:
        number = self.resolve(model, version)
        with self._asking(f"{model} has no version {number}"):
            return str(self.client.get_model_version(model, number).tags.get(VERSION_CANDIDATE, ""))

    def _registered(self, model: str) -> RegisteredModel:
        with self._asking(f"there is no model {model} in the store {shown(self.uri)}"):
            return self.client.get_registered_model(model)


def open_registry(uri: str | None, project: Path) -> ModelStore:
    """The model store at `uri`, or the project's own in `.headrace/mlflow`, made when it is not there.

    Raises MissingExtra, StoreUnreachable.
    """
    folder = project / ".headrace" / "mlflow"
    address = uri or embedded_uri(folder)
    return ModelStore(address, folder.resolve(), connect(address, folder))


def _promotions(tags: Mapping[str, str], alias: str | None = None) -> list[Promotion]:
    found = []
    for name, text in tags.items():
        of, _, epoch = name.removeprefix(EPOCH_TAG).rpartition(".")
        if name.startswith(EPOCH_TAG) and epoch.isdigit() and alias in (None, of):
            said = json.loads(text)
            found.append(Promotion(int(epoch), of, said["version"], datetime.fromisoformat(said["at"])))
    return sorted(found)


def _in_force(tags: Mapping[str, str], alias: str) -> Promotion | None:
    return max(_promotions(tags, alias), default=None)


def _pages(search: Any, *filters: str) -> Iterator[Any]:
    """Every page of a search, up to VERSIONS_MAX."""
    token: str | None = None
    for _ in range(VERSIONS_MAX // PAGE):
        page = search(*filters, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _own(metrics: Mapping[str, float], candidate: str) -> dict[str, float]:
    """A candidate's metrics, by their bare names."""
    return {name.removeprefix(f"{candidate}."): value for name, value in metrics.items()
            if name.startswith(f"{candidate}.")}


def _version(found: ModelVersion, aliases: Mapping[str, str], metrics: Mapping[str, float]) -> Version:
    number, candidate = str(found.version), found.tags.get(VERSION_CANDIDATE)
    return Version(found.name, number, found.tags.get(VERSION_TRIGGER), candidate, found.run_id or None,
                   datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
                   tuple(sorted(name for name, version in aliases.items() if version == number)),
                   _own(metrics, candidate) if candidate else dict(metrics))
