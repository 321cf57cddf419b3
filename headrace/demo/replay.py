"""The loop's act, its stage: the flows and parts that run in it, and a year that waits for them.

A replay is faster than the trainings it causes, so it stops at the end of every week until all that the week led to has
been carried out; and a week's landings come when its predictions are all there. Then the same year gives the same
records in the same order, and so the same decisions, whatever the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.control import Retrain, RetrainResult, Switch, Verdict
from headrace.demo.data import Flights
from headrace.demo.folder import Run, Staged
from headrace.demo.load import Encoded, Loader, encode_as
from headrace.demo.workers import Crew, Worker
from headrace.supervisor import python_command

if TYPE_CHECKING:
    from headrace.control import ControlEvent
    from headrace.plan import Plan
    from headrace.settings import Settings
    from headrace.topics import TopicPlan

FLOWS = ("predictions", "outcomes", "flight-delay")
WATCHED = "flight-delay"
"""The flow that declares the model, and the model's name."""
PARTS = ("decide", "dispatch", "gate", "audit")
WEATHER = "flights.weather"
BATCH = 20_000
HOUR_MS = 3_600_000
WEEK_MS, SHIFT_MS = 7 * 24 * HOUR_MS, 29 * HOUR_MS
"""The windows of flows/flight-delay.yaml."""
BEGIN = datetime(2013, 3, 1, 5, tzinfo=UTC)
"""The end of February in New York: the first model is asked for, and the weeks begin to count."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The flows of the loop in a run's folder, and its parts by (group, plan). Their topics, control topics too, bear
    the run's name."""

    flows: Mapping[str, Staged]
    parts: Mapping[str, tuple[str, Plan]]
    control: str
    weather: str

    def topic(self, kind: type[ControlEvent]) -> str:
        """The control topic of a kind of event."""
        return self.control + kind.home.removeprefix("headrace")

    def said(self) -> dict[str, type[ControlEvent]]:
        """The control topics, in the order in which things come to pass."""
        return {self.topic(kind): kind for kind in (Retrain, RetrainResult, Verdict, Switch)}

    def groups(self) -> dict[str, tuple[str, list[str]]]:
        """Who reads what: name → (group, topics)."""
        plans = {**{name: (each.group, each.plan) for name, each in self.flows.items()}, **self.parts}
        return {name: (group, [source.config.topic for source in plan.sources])
                for name, (group, plan) in plans.items()}

    def topics(self) -> list[TopicPlan]:
        """All but the changelogs, which the workers make."""
        from headrace.topics import TopicPlan

        plans = [*(each.plan for each in self.flows.values()), *(plan for _, plan in self.parts.values())]
        weather = TopicPlan(self.weather, 1, {"cleanup.policy": "compact", "retention.ms": "-1"})
        return [*(topic for plan in plans for topic in plan.topics), weather]

    def names(self) -> list[str]:
        """The names of all topics, changelogs too: what the next run deletes."""
        return [*(topic.name for topic in self.topics()), *(f"{group}.state" for group, _ in self.groups().values())]

    @property
    def landings(self) -> Any:
        """The source of landings of the flow `outcomes`."""
        return self.flows["outcomes"].plan.sources[1]


def stage(run: Run) -> Stage:
    """Copies of the flows with the run's name behind every `flights.` topic and in the control topics' prefix."""
    from headrace import governed, plan

    control = f"headrace.{run.name}"
    staged = {}
    for flow in FLOWS:
        text = (run.folder / "flows" / f"{flow}.yaml").read_text()
        text = re.sub(r"\bflights\.[a-z.]+[a-z]", lambda found: f"{found[0]}.{run.name}", text)
        text = re.sub(r"\bheadrace\.(verdicts)\b", rf"{control}.\1", text)
        text = text.replace("train: {to: local}", "train: {to: local, with: {nice: 0}}")  # the replay waits for it
        path = run.folder / "flows" / "loop" / f"{flow}.yaml"
        path.parent.mkdir(exist_ok=True)
        own = f"control: {control}\ndead_letter: {control}.dead-letter"
        path.write_text(text.replace("\nowner:", f"\n{own}\nowner:", 1))
        staged[flow] = Staged("loop", flow, f"{control}.{flow}", plan.load(path, run.folder))
    spec = staged[WATCHED].plan.spec
    parts = {part: (governed.group(spec, part), plan.plan(governed.part(spec, part), run.folder)) for part in PARTS}
    return Stage(staged, parts, control, f"{WEATHER}.{run.name}")


def start(crew: Crew, stage_: Stage) -> list[Worker]:
    """The three flows and the four parts, each a process of its own."""
    flow = str(stage_.flows[WATCHED].path)
    return [*(crew.start(stage_.flows[name], drain=False, batch=BATCH) for name in FLOWS),
            *(crew.spawn(part, f"loop-{part}", python_command("loop", "run", flow, "--part", part)) for part in PARTS)]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one stop of the replay sends: rows of the departures, then rows of the landings."""

    begin: datetime
    end: datetime
    departures: slice
    landings: slice


@dataclass(frozen=True, slots=True)
class Year:
    """The flights as the loop's sources have them, and where its weeks begin and end."""

    departures: Encoded
    landings: Encoded
    chunks: tuple[Chunk, ...]


def year(settings: Settings, stage_: Stage, flights: Flights) -> Year:
    """Both streams encoded, their schemas pushed to the registry. Raises RegistryError, MissingExtra."""
    landed = landings(flights)
    at_ms = landed.column("arrived_at").cast(pa.int64()).to_numpy()
    source = stage_.flows["predictions"].plan.source
    return Year(encode_as(settings, source, flights.departures, flights.at_ms),
                encode_as(settings, stage_.landings, landed, at_ms), tuple(chunks(flights.at_ms, at_ms)))


def chunks(departs_ms: Any, arrives_ms: Any) -> Iterator[Chunk]:
    """All before BEGIN at once, then week by week. The landings of the night after belong to each: they come before
    the next departure, and tell the monitor that the week is over. Both times must rise."""
    first = round(BEGIN.timestamp() * 1000)
    assert (first - SHIFT_MS) % WEEK_MS == 0, "a window ends there"
    ends = [first, *range(first + WEEK_MS, int(departs_ms[-1]) + WEEK_MS, WEEK_MS)]
    departed = landed = 0
    for begin, end in zip([int(departs_ms[0]), *ends], ends, strict=False):
        to = int(np.searchsorted(departs_ms, end))
        down = int(np.searchsorted(arrives_ms, departs_ms[to])) if to < len(departs_ms) else len(arrives_ms)
        yield Chunk(_utc(begin), _utc(end), slice(departed, to), slice(landed, down))
        departed, landed = to, down


def landings(flights: Flights) -> pa.RecordBatch:
    """Every flight that has arrived, as schemas/landing.avsc has it, in the order of arrival."""
    import polars as pl

    from headrace.demo import features

    rows = pl.DataFrame({"flight_id": pl.from_arrow(flights.departures["flight_id"]),
                         "arrived_at": features.arrived_at(flights),
                         "arr_delay": pl.from_arrow(flights.arrivals["arr_delay"])})
    table = rows.drop_nulls().sort("arrived_at", "flight_id").to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.combine_chunks().to_batches()[0]


def send_weather(settings: Settings, stage_: Stage, loader: Loader) -> int:
    """The year's weather into its compacted topic; how many hours of an airport."""
    from headrace import codec
    from headrace.demo import features
    from headrace.demo.load import encode_rows

    lookup = next(step for step in stage_.flows["predictions"].plan.steps if step.kind == "lookup")
    schema = codec.load(stage_.flows["predictions"].plan.project / "schemas" / "weather.avsc")
    table = features.weather().combine_chunks()
    rows = table.to_batches()[0]
    keys = [f"{origin}|{hour}".encode() for origin, hour in zip(*(rows[name].to_pylist() for name in
                                                                ("origin", "weather_hour")), strict=True)]
    assert lookup.processor.config.topic == stage_.weather
    loader.send(stage_.weather, Encoded(encode_rows(settings, stage_.weather, schema, rows), keys, [0] * len(rows)))
    return len(rows)


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
