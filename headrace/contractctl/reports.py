"""Verdicts on windows, read from their topic; what is made of them, written to folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from headrace.contractctl.windowpages import INDEX, MADE_BY
from headrace.contractctl.windows import Window
from headrace.control import Verdict
from headrace.errors import UserError
from headrace.loopview.history import read_events, topic_of
from headrace.registry import Registry
from headrace.settings import Settings


def read(settings: Settings, control: str) -> tuple[list[Verdict], list[str]]:
    """Every verdict under a prefix, in the order of the topic, and what there could not be read. Raises NoTopic (a
    UserError), BrokerError, RegistryError."""
    unreadable: list[str] = []
    writers = Registry(settings.registry_client()).schema
    found = read_events(settings, topic_of(control, Verdict), Verdict, writers, unreadable)
    return [placed.event for placed in found], unreadable


def check_folder(folder: Path) -> None:
    """Raises UserError where pages must not go: no folder, or one with a page that this did not make."""
    index = folder / INDEX
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is there, and no folder")
    if index.exists() and MADE_BY not in index.read_text(encoding="utf-8", errors="replace")[:2_000]:
        raise UserError(f"{index} is there, and no page of `{MADE_BY}`", hint="take another folder, or move it away")


def write_pages(folder: Path, pages: Iterable[tuple[str, str]]) -> int:
    """How many were written; pages of windows that are shown no more stay. Raises UserError."""
    count = 0
    for name, html in pages:
        _write(folder / name, html)
        count += 1
    return count


def write_results(folder: Path, windows: Sequence[Window]) -> int:
    """Validation results where Great Expectations keeps them, so that `folder` is a store of it (as
    gx/uncommitted/validations) and its Data Docs can be built. How many there were: windows without one are passed
    over. Raises UserError."""
    count = 0
    for window in windows:
        stored = _stored(window)
        if stored is not None:
            path, result = stored
            _write(folder / path, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
            count += 1
    return count


def _stored(window: Window) -> tuple[Path, dict[str, Any]] | None:
    """<suite>/<run>/<time>/<batch>.json, as Great Expectations' store has it, and what is in there."""
    if window.detail is None or window.unreadable is not None:
        return None
    event = window.event
    run = _part(f"{event.flow}-{event.step}")
    at = (event.window_start or event.at).astimezone(UTC)
    meta = {**(window.detail.get("meta") or {}), "run_id": {"run_name": run, "run_time": at.isoformat()}}
    place = Path(_part(window.suite), run, f"{at:%Y%m%dT%H%M%S.%fZ}", f"{_part(window.name)}.json")
    return place, {**window.detail, "meta": meta}


def _part(name: str) -> str:
    """A name as a part of a path."""
    return re.sub(r"[^\w.-]|^\.+", "_", name) or "_"


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from error
