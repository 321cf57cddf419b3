"""The loop's act, its stage: the flows and parts that run in it, and a year that waits for them.

A replay is faster than the trainings it causes, so it stops at the end of every week until all that the week led to has
been carried out: then the same year gives the same decisions, whatever the machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.demo.folder import Run, Staged
from headrace.demo.workers import Crew, Worker
from headrace.errors import EnvironmentFault
from headrace.supervisor import python_command

if TYPE_CHECKING:
    from headrace.settings import Settings

FLOWS = ("predictions", "outcomes", "flight-delay")
WATCHED = "flight-delay"
"""The flow that declares the model."""
LOOK_S = 0.05
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Stage:
    """The flows of the loop in a run's folder; all their topics, and the control topics, bear the run's name."""

    flows: dict[str, Staged]
    control: str

    def topic(self, name: str) -> str:
        """A control topic of this run."""
        return f"{self.control}.{name}"


def stage(run: Run) -> Stage:
    """Copies of the flows with the run's name behind every `flights.` topic and in the control topics' prefix."""
    from headrace.plan import load

    control = f"headrace.{run.name}"
    staged = {}
    for flow in FLOWS:
        text = (run.folder / "flows" / f"{flow}.yaml").read_text()
        text = re.sub(r"\bflights\.[a-z.]+[a-z]", lambda found: f"{found[0]}.{run.name}", text)
        text = re.sub(r"\bheadrace\.(verdicts)\b", rf"{control}.\1", text)
        path = run.folder / "flows" / "loop" / f"{flow}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("\nowner:", f"\ncontrol: {control}\nowner:", 1))
        staged[flow] = Staged("loop", flow, f"{control}.{flow}", load(path, run.folder))
    return Stage(staged, control)


def parts(stage_: Stage) -> dict[str, tuple[str, Any]]:
    """Part of the loop → (group, plan)."""
    from headrace import governed, plan

    spec = stage_.flows[WATCHED].plan.spec
    project = stage_.flows[WATCHED].plan.project
    return {part: (governed.group(spec, part), plan.plan(governed.part(spec, part), project))
            for part in governed.PARTS}


def start_part(crew: Crew, stage_: Stage, part: str) -> Worker:
    """`headrace loop run --part`, in the run's folder."""
    staged = stage_.flows[WATCHED]
    log = crew.run.folder / "logs" / f"loop-{part}.log"
    where = {"HEADRACE_BOOTSTRAP": crew.settings.bootstrap or "", "HEADRACE_REGISTRY": crew.settings.registry_url or ""}
    with log.open("ab") as opened:
        process = subprocess.Popen(python_command("loop", "run", str(staged.path), "--part", part), cwd=crew.run.folder,
                                   env={**os.environ, **where}, stdin=subprocess.DEVNULL, stdout=opened, stderr=opened)
    worker = Worker(staged, process, log)
    crew.workers.append(worker)
    return worker


class Lags:
    """How far groups have come in their topics, asked at once; markers at the end count as read."""

    def __init__(self, settings: Settings, pairs: Sequence[tuple[str, Sequence[str]]]) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._pairs = [(group, [TopicPartition(topic, 0) for topic in topics]) for group, topics in pairs]
        self._consumers: list[Any] = [
            Consumer(settings.client(group_id=group, isolation_level="read_committed")) for group, _ in pairs]

    def left(self, at: int) -> int:
        """Records, or markers, that a group has not passed."""
        consumer, asked = self._consumers[at], self._pairs[at][1]
        total = 0
        for found in consumer.committed(asked, timeout=10):
            end = consumer.get_watermark_offsets(found, timeout=10)[1]
            total += max(0, end - max(found.offset, 0))
        return total

    def settle(self, show: Callable[[], None], check: Callable[[], None], first: int = 0) -> None:
        """Until every group, in the order given, has read its topics to their ends."""
        deadline = time.monotonic() + PATIENCE_S
        for at in range(first, len(self._pairs)):
            while self.left(at):
                check()
                show()
                if time.monotonic() > deadline:
                    raise EnvironmentFault(f"{self._pairs[at][0]} has not come to the end of its topics within "
                                           f"{PATIENCE_S:g} s")
                time.sleep(LOOK_S)

    def close(self) -> None:
        for consumer in self._consumers:
            with closing(consumer):
                pass
