"""Connectors beside the real Kafka Connect (CSV → Kafka) and the loops a user would write (→ PostgreSQL, → Delta).

    python bench/connect.py [--records N] [--rounds N]

Same topic, same broker, same database, in turns; the median of each counts. The loops read the first part of the
topic, long enough to be measured. Ours is timed from when it has its partitions to its end, the loops from the first
record they have to the last they have committed, and what each table holds afterwards is checked. The two workers are
timed alike, from the request to the last line that is committed; the real one grows faster over its first minute, as
Java does, so that the rounds before the median count in its disfavour, and those after it in ours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import job  # noqa: E402
import load  # noqa: E402
import psutil  # noqa: E402
import run  # noqa: E402

from headrace.peek import scan  # noqa: E402

GOALS = {"csv": 5, "postgres": 3, "deltalake": 3}
TIMES = {"csv": 10, "postgres": 1, "deltalake": 4}
"""How many records ours gets, times --records: enough to get going."""
SHARE = {"csv": 1.0, "postgres": 0.05, "deltalake": 0.1}
"""Of which the other gets so many, long enough to be measured."""
KEY = "time_hour,carrier,flight,origin"
Once = Callable[[str, str, int], dict[str, Any]]
"""(engine, topic, records) → {records, records_per_s, rss_mb, cpu_s}"""


def sink(name: str, topic: str, keys: dict[str, str]) -> dict[str, Any]:
    """`headrace connect` with one sink, over all of the topic."""
    home = run.WORK / "projects" / name
    home.mkdir(parents=True)
    config = {"name": name, "topics": topic, "consumer.override.isolation.level": "read_committed", **keys}
    (home / "sink.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "headrace", "connect", "sink.json", "--drain", "--json", "--log", "info"]
    lines, peak, cpu = run.measured(command, home)
    told = next(line for line in lines if line.get("connector") == name and "message" not in line)
    begun, ended = (next(datetime.fromisoformat(line["time"]) for line in lines if line.get("message") == message)
                    for message in ("assigned", "stopped"))
    seconds = (ended - begun).total_seconds()
    return {"records": told["records"], "records_per_s": round(told["records"] / seconds), "rss_mb": round(peak),
            "cpu_s": round(cpu, 1)}


def loop(script: str, *words: str) -> dict[str, Any]:
    """A peer's script."""
    work = run.WORK / "peers" / script
    work.mkdir(parents=True, exist_ok=True)
    lines, peak, cpu = run.measured([sys.executable, str(HERE / "peers" / f"{script}.py"), *words], work)
    told = next(line for line in lines if line.get("engine") == script)
    return {"records": told["records"], "records_per_s": round(told["records"] / told["seconds"]),
            "rss_mb": round(peak), "cpu_s": round(cpu, 1)}


def to_postgres(topic: str, records: int, rounds: int) -> dict[str, Any]:
    """Upserts of flights by their key."""
    from tests.external.postgres import postgres

    with postgres() as server:
        def once(engine: str, tag: str, n: int) -> dict[str, Any]:
            if engine == "loop":
                server.sql(TABLE.format(table=tag))
                found = loop("postgres_loop", topic, str(n), server.dsn, tag)
            else:
                found = sink(tag, topic, {"connector.class": "postgres", "connection": server.dsn, "table": tag,
                                          "insert.mode": "upsert", "pk.fields": KEY, "auto.create": "true"})
            rows, = server.sql(f"SELECT count(*) FROM {tag}")
            assert rows[0] <= found["records"], f"{engine}: {rows[0]} rows of {found['records']} records"
            assert engine == "loop" or rows[0] == min(found["records"], FLIGHTS), f"{rows[0]} rows"
            server.sql(f"DROP TABLE {tag}")
            return found

        return compared("postgres", once, records, rounds)


def to_delta(topic: str, records: int, rounds: int) -> dict[str, Any]:
    """Appends of flights."""
    lake = run.WORK / "lake"

    def once(engine: str, tag: str, n: int) -> dict[str, Any]:
        from deltalake import DeltaTable

        folder = lake / tag
        if engine == "loop":
            found = loop("delta_loop", topic, str(n), str(folder))
        else:
            found = sink(tag, topic, {"connector.class": "deltalake", "table": str(folder)})
        rows = DeltaTable(folder).count()
        assert rows == found["records"], f"{engine}: {rows} rows of {found['records']} records"
        return found

    try:
        return compared("deltalake", once, records, rounds)
    finally:
        shutil.rmtree(lake, ignore_errors=True)


def from_csv(records: int, rounds: int) -> dict[str, Any]:
    """The same file of flights, line by line as text: by the class FileStreamSource of our worker, and by the real
    one's. Both run as servers, and are told by the same request. Ours writes each line exactly once; the real one at
    least once, as it does by itself."""
    from headrace.stack import supervise
    from headrace.stack.connect import CONNECT, running
    from headrace.stack.lifecycle import Where

    file = run.WORK / "flights.csv"
    write_csv(file, records)
    keys = {"connector.class": "FileStreamSource", "file": str(file), "tasks.max": "1",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter"}
    with running(os.environ["HEADRACE_BOOTSTRAP"], run.WORK / "connect") as theirs, worker() as (ours, process):
        there = supervise.find(Where(run.WORK / "connect").pidfile(CONNECT))
        assert there is not None
        servers = {"headrace": (ours, process), "loop": (theirs, psutil.Process(there.pid))}

        def once(engine: str, tag: str, n: int) -> dict[str, Any]:
            job.create(tag)
            found = copied(*servers[engine], {**keys, "name": tag, "topic": tag}, n)
            assert committed(tag) == n, f"{engine}: {committed(tag)} of {n} lines"
            return found

        return compared("csv", once, records, rounds)


def write_csv(file: Path, records: int) -> None:
    """Flights over and over, without a header: every line is a record."""
    lines = [",".join("" if cell is None else str(cell) for cell in row.values()) + "\n" for row in load.flights()]
    with file.open("w") as out:
        out.writelines(islice(cycle(lines), records))


@contextmanager
def worker() -> Iterator[tuple[str, psutil.Process]]:
    """`headrace connect` as a server: its URL, and the process."""
    from headrace.stack.connect import answers
    from tests.ports import free_port

    group, home = f"bench-{uuid.uuid4().hex[:6]}", run.WORK / "projects" / "worker"
    home.mkdir(parents=True, exist_ok=True)
    host, port = "127.0.0.1", free_port()
    with (home / "worker.log").open("w") as log:
        command = [sys.executable, "-m", "headrace", "connect", "--listen", f"{host}:{port}", "--group", group]
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
        try:
            until(lambda: answers(host, port), "our worker answers", 60)
            yield f"http://{host}:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def until(true: Callable[[], bool], what: str, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def copied(url: str, process: psutil.Process, config: dict[str, str], records: int) -> dict[str, Any]:
    """A connector at a worker: from the request that makes it to the last record that is committed. `rss_mb` is what
    the worker holds then."""
    import httpx2 as httpx

    name = config["name"]
    with ends(name) as written:
        begun, cpu = time.perf_counter(), cpu_s(process)
        httpx.post(f"{url}/connectors", json={"name": name, "config": config}, timeout=60).raise_for_status()
        until(lambda: written() >= records, f"{records} lines in {name}", 600)
        seconds = time.perf_counter() - begun
    httpx.delete(f"{url}/connectors/{name}", timeout=60).raise_for_status()
    return {"records": records, "records_per_s": round(records / seconds), "cpu_s": round(cpu_s(process) - cpu, 1),
            "rss_mb": round(process.memory_info().rss / 1e6)}


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def ends(topic: str) -> Iterator[Callable[[], int]]:
    """How many offsets of a topic are committed. (The markers of transactions are among them: one a partition and
    transaction, far fewer than a transaction has records.)"""
    from confluent_kafka import TopicPartition

    from headrace.peek import reader
    from headrace.settings import load as settings

    with reader(settings(run.WORK)) as consumer:
        there = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        yield lambda: sum(consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in there)


def committed(topic: str) -> int:
    """Records in a topic, without the markers of transactions."""
    from headrace.settings import load as settings

    return sum(map(len, scan(settings(run.WORK), topic)))


def compared(what: str, once: Once, records: int, rounds: int) -> dict[str, Any]:
    """Both engines in turns, and how many times faster ours is."""
    found: dict[str, list[dict[str, Any]]] = {"headrace": [], "loop": []}
    for at in range(rounds):
        for engine, runs in found.items():
            n = int(records * SHARE[what]) if engine == "loop" else records
            runs.append(once(engine, f"{what}_{engine}_{uuid.uuid4().hex[:6]}", n))
            print(f"round {at + 1}: {what}, {engine}: {runs[-1]}", file=sys.stderr)
    rates = {engine: statistics.median(one["records_per_s"] for one in runs) for engine, runs in found.items()}
    return {**{engine: {**runs[0], "records_per_s": round(rates[engine])} for engine, runs in found.items()},
            "ratio": round(rates["headrace"] / rates["loop"], 2), "goal": GOALS[what]}


def measure(records: int, rounds: int) -> dict[str, Any]:
    """Within `run.broker()`."""
    found = {"csv": from_csv(records * TIMES["csv"], rounds)}
    for what, to in {"postgres": to_postgres, "deltalake": to_delta}.items():
        topic, n = f"bench-connect-{uuid.uuid4().hex[:6]}", records * TIMES[what]
        load.backlog(topic, n)
        found[what] = to(topic, n, rounds)
    return found


PATHS = {"csv": "CSV lines → Kafka, beside Kafka Connect's file source",
         "postgres": "Kafka → PostgreSQL, beside a row-by-row upsert loop",
         "deltalake": "Kafka → Delta, beside a loop of appends of 10,000"}


def table(found: dict[str, Any]) -> str:
    """As Markdown."""
    rows = ["| connector | headrace, records/s | the other | headrace is | goal |", "|---|--:|--:|--:|--:|"]
    rows += [f"| {PATHS[what]} | {one['headrace']['records_per_s']:,} | {one['loop']['records_per_s']:,} | "
             f"{one['ratio']} × | {one['goal']} × {'reached' if one['ratio'] >= one['goal'] else 'MISSED'} |"
             for what, one in found.items()]
    return "\n".join(rows)


FLIGHTS = 336_776
TABLE = """CREATE TABLE {table} (
    year integer NOT NULL, month integer NOT NULL, day integer NOT NULL, dep_time integer,
    sched_dep_time integer NOT NULL, dep_delay integer, arr_time integer, sched_arr_time integer NOT NULL,
    arr_delay integer, carrier text NOT NULL, flight integer NOT NULL, tailnum text, origin text NOT NULL,
    dest text NOT NULL, air_time integer, distance integer NOT NULL, hour integer NOT NULL, minute integer NOT NULL,
    time_hour text NOT NULL, PRIMARY KEY (time_hour, carrier, flight, origin))"""
"""What the sink makes of the records by itself."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    run.WORK.mkdir(parents=True, exist_ok=True)
    with run.broker():
        found = measure(given.records, given.rounds)
    print(table(found))


if __name__ == "__main__":
    main()
