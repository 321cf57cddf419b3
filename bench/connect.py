"""Connectors beside the loops a user would write: Kafka → PostgreSQL, Kafka → Delta.

    python bench/connect.py [--records N] [--rounds N]

Same topic, same broker, same database, in turns; the median of each counts. The loops read the first part of the
topic, long enough to be measured. Both are timed from the first record they have to the last they have committed, and
what each table holds afterwards is checked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import run  # noqa: E402

GOALS = {"postgres": 3, "deltalake": 3}
SHARE = {"postgres": 0.05, "deltalake": 0.3}
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


def compared(what: str, once: Once, records: int, rounds: int) -> dict[str, Any]:
    """Both engines in turns, and how many times faster ours is."""
    found: dict[str, list[dict[str, Any]]] = {"headrace": [], "loop": []}
    for at in range(rounds):
        for engine, runs in found.items():
            n = int(records * SHARE[what]) if engine == "loop" else records
            runs.append(once(engine, f"{what}_{engine}_{uuid.uuid4().hex[:6]}", n))
            print(f"round {at + 1}: Kafka → {what}, {engine}: {runs[-1]}", file=sys.stderr)
    rates = {engine: statistics.median(one["records_per_s"] for one in runs) for engine, runs in found.items()}
    return {**{engine: {**runs[0], "records_per_s": round(rates[engine])} for engine, runs in found.items()},
            "ratio": round(rates["headrace"] / rates["loop"], 2), "goal": GOALS[what]}


def measure(records: int, rounds: int) -> dict[str, Any]:
    """Within `run.broker()`."""
    import load

    topic = f"bench-connect-{uuid.uuid4().hex[:6]}"
    load.backlog(topic, records)
    return {"postgres": to_postgres(topic, records, rounds), "deltalake": to_delta(topic, records, rounds)}


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
    for what, one in found.items():
        told = "reached" if one["ratio"] >= one["goal"] else "MISSED"
        print(f"Kafka → {what}: {one['headrace']['records_per_s']:,} records/s, the loop "
              f"{one['loop']['records_per_s']:,}: {one['ratio']} × (goal {one['goal']} ×) {told}")


if __name__ == "__main__":
    main()
