"""What lifecycle.py knows of each part: its ports, how to prepare, start and ask it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Ports = Mapping[str, int]
HOST = "127.0.0.1"
"""It listens to this machine only: the registry has no users, and Kafka has some only where it was asked to."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start: its arguments, additions to the environment, and the folder it runs in."""

    argv: list[str]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True, slots=True, eq=False)  # there is one object of each
class Part:
    name: str
    """Also that of its data folder and its log, and of the port where it answers."""
    ports: Ports
    """The usual ones, by name."""
    launch: Callable[[Path, Path, Ports], Launch]
    """launch(bundle folder, data folder, ports): write what it needs into the data folder, say how to start it."""
    address: Callable[[Ports], str]
    """What clients are told."""
    ready: Callable[[Ports], bool]
    """Does it answer? Bounded to a second or two; never raises."""
    bundle: str
    """What it runs from, of `checksums.json`."""
    knows: frozenset[str] = frozenset()
    """Ports whose numbers it is told when it starts, others' among them: where one of those moves, it starts again."""
