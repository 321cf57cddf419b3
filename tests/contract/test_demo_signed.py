"""The demo's referee makes every prediction again by the version that signed it, from a real model registry: here with
predictions that are right, and with ones that are wrong in each way there is."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.demo import baselines, features, referee
from headrace.demo.baselines import Known
from headrace.demo.data import flights
from headrace.demo.referee import Read
from headrace.demo.replay import BEGIN, WATCHED
from headrace.loop import training
from headrace.loop.models import ModelStore, open_registry
from headrace.resources import content
from headrace.settings import Settings
from tests.unit.test_demo_loop import switch

pytestmark = [pytest.mark.contract, pytest.mark.timeout(300)]
LATER = BEGIN + timedelta(days=7)
SWITCHES = [switch("1"), switch("2", LATER, "1")]


@pytest.fixture(scope="module")
def facts() -> Known:
    return baselines.known(flights(date(2013, 2, 20), date(2013, 3, 14)), content("schemas").parent)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, facts: Known) -> ModelStore:
    """Two versions of the model, of the flights known by March: one of all, one of the recent ones with other lots."""
    made = open_registry(None, tmp_path_factory.mktemp("models"))
    as_of = round(BEGIN.timestamp() * 1000)
    known = facts.rows.filter(pa.array(facts.valid & training.known(features.MODEL, facts.rows, as_of)))
    half = known.slice(0, known.num_rows // 2)
    pipelines = {"all": training.fit(features.MODEL, known, "all", as_of),
                 "recent": training.fit(features.MODEL, half, "all", as_of)}
    logged = made.log_run("t" * 16, WATCHED, spec={}, metrics={}, facts={}, models=pipelines,
                          references={name: {} for name in pipelines},
                          example=known.select(list(features.MODEL.features)).slice(0, 5))
    assert dict(logged.candidates) == {"all": "1", "recent": "2"}
    return made


def read_of(store: ModelStore, facts: Known) -> Read:
    """The predictions as a loop would have made them."""
    version = np.where(facts.valid, referee.versions_due(SWITCHES, facts.at_ms), "").astype(object)
    p = np.full(len(version), np.nan)
    for number in ("1", "2"):
        mine = version == number
        p[mine] = store.load(WATCHED, number).predict(facts.rows.filter(pa.array(mine)))
    none = np.zeros(len(version), dtype=int)
    return Read(facts.valid.astype(int), none, none, none, p, version, p, 0)


def said(store: ModelStore, it: Read, facts: Known) -> list[str]:
    project = store.folder.parent.parent
    return referee.signed(Settings(project, None, None), it, facts, SWITCHES)


def test_what_is_right_is_found_right(store: ModelStore, facts: Known) -> None:
    it = read_of(store, facts)
    assert {"", "1", "2"} == set(it.version[it.scored > 0])
    assert said(store, it, facts) == []


def change(it: Read, how: str) -> Any:
    """One flight of the first version, in the last bit or more."""
    at = int(np.flatnonzero(it.version == "1")[17])
    match how:
        case "bit":
            it.p[at] = np.nextafter(it.p[at], 1)
        case "version":
            it.version[at] = "2"
        case "unsigned":
            it.version[at] = ""
        case "none":
            it.p[at] = np.nan


@pytest.mark.parametrize(("how", "words"), [
    ("bit", "1 of"), ("version", "1 predictions are signed by another version"), ("unsigned", "1 predictions are not"),
    ("none", "1 predictions are not")])
def test_one_wrong_prediction_among_thousands_is_found(store: ModelStore, facts: Known, how: str, words: str) -> None:
    it = read_of(store, facts)
    change(it, how)
    found = said(store, it, facts)
    assert any(fault.startswith(words) for fault in found), found


def test_a_version_that_served_before_its_switch_is_found(store: ModelStore, facts: Known) -> None:
    it = read_of(store, facts)
    early = SWITCHES[:1]
    project: Path = store.folder.parent.parent
    assert any("another version" in fault
               for fault in referee.signed(Settings(project, None, None), it, facts, early))
