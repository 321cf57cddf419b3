"""`make bench`: headrace beside its peers, in the same run, on the same broker. Only the ratios mean anything.

    python bench/run.py [--records N] [--only headrace,hand_written,…] [--rounds N]

Prints a table and writes `.headrace/bench.json`. Each peer runs in an environment of its own; each engine takes turns
with the others (`--rounds`), and its median counts. Uses HEADRACE_BOOTSTRAP and HEADRACE_REGISTRY when both are set,
an embedded stack of its own otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / ".headrace" / "bench"
PEERS = {"hand_written": None, "faust": "faust.txt", "quix": "quix.txt", "contracts_headrace": None,
         **{name: f"{name}.txt" for name in ("contracts_gx", "contracts_dataframely", "contracts_pandera",
                                             "contracts_pointblank")}}
SHARE = {"headrace": 1.0, "hand_written": 0.3, "quix": 0.12, "faust": 0.06}  # each long enough, none for minutes
GOALS = {"hand_written": 4, "quix": 12, "faust": 40}
sys.path.insert(0, str(HERE))


@contextmanager
def broker() -> Iterator[None]:
    """HEADRACE_BOOTSTRAP and HEADRACE_REGISTRY, from the environment or from a stack started here."""
    if os.environ.get("HEADRACE_BOOTSTRAP") and os.environ.get("HEADRACE_REGISTRY"):
        yield
        return
    from headrace.settings import load
    from headrace.stack.lifecycle import down, up

    home = WORK / "stack"
    home.mkdir(parents=True, exist_ok=True)
    up(home)
    try:
        found = load(home)
        os.environ.update(HEADRACE_BOOTSTRAP=str(found.bootstrap), HEADRACE_REGISTRY=str(found.registry_url))
        yield
    finally:
        down(home, purge=True)


def environment(peer: str) -> Path:
    """The peer's own interpreter; its locked packages are installed once."""
    lock = PEERS[peer]
    if lock is None:
        return Path(sys.executable)
    venv, text = WORK / f"venv-{peer}", (HERE / "peers" / lock).read_text()
    if not (venv / "lock").is_file() or (venv / "lock").read_text() != text:
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(venv)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(venv / "bin/python"), "--require-hashes", "-r",
                        str(HERE / "peers" / lock)], check=True)
        (venv / "lock").write_text(text)
    return venv / "bin" / "python"


def measured(command: list[str], cwd: Path, **env: str) -> tuple[list[dict[str, Any]], float, float]:
    """Run to the end: (JSON lines it printed, peak RSS in MB, CPU seconds). Raises CalledProcessError."""
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **env}, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    watched, peak, cpu = psutil.Process(process.pid), 0.0, 0.0
    with (cwd / "last.log").open("w+") as log:
        import threading

        reader = threading.Thread(target=lambda: log.writelines(process.stdout or ()))
        reader.start()
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss / 1e6)
                times = watched.cpu_times()
                cpu = times.user + times.system
            except psutil.Error:
                break
            time.sleep(0.05)
        process.wait()
        reader.join()
        log.seek(0)
        lines = log.read().splitlines()
    if process.returncode:
        print("\n".join(lines[-30:]), file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    return [json.loads(line) for line in lines if line.startswith("{")], peak, cpu


def project(tag: str, source: str) -> Path:
    """A copy of bench/project whose topics are this run's."""
    home = WORK / "projects" / tag
    for file in sorted((HERE / "project").rglob("*")):
        if file.is_file():
            to = home / file.relative_to(HERE / "project")
            to.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text().replace("bench.flights", source)
            to.write_text(text.replace("bench.valid", f"{tag}-valid").replace("bench.bad", f"{tag}-bad"))
    return home


def run_flow(home: Path, tag: str) -> dict[str, Any]:
    """headrace, once, on all of the topic of a `project`."""
    command = [sys.executable, "-m", "headrace", "run", "standard", "--drain", "--group", tag]
    lines, peak, cpu = measured(command, home)
    told = next(line for line in lines if line.get("message") == "stopped")
    return {"records": told["records_in"], "records_per_s": told["records_per_s"], "rss_mb": round(peak),
            "cpu_s": round(cpu, 1), "valid": f"{tag}-valid", "bad": f"{tag}-bad"}


def run_engine(engine: str, topic: str, records: int) -> dict[str, Any]:
    """One engine, once, on the first `records` of the topic (headrace: on all of it)."""
    if engine == "headrace":
        tag = f"headrace-{uuid.uuid4().hex[:6]}"
        return run_flow(project(tag, topic), tag)
    work = WORK / "peers" / engine
    work.mkdir(parents=True, exist_ok=True)
    python = str(environment(engine))
    script = str(HERE / "peers" / {"faust": "faust_peer.py"}.get(engine, f"{engine}.py"))
    command = [python, script, "worker", "-l", "warn"] if engine == "faust" else [python, script, topic, str(records)]
    lines, peak, cpu = measured(command, work, TOPIC=topic, RECORDS=str(records), DATADIR=str(work / "faust"))
    told = next(line for line in lines if line.get("engine") == engine)
    return {"records": told["records"], "records_per_s": round(told["records"] / told["seconds"]),
            "rss_mb": round(peak), "cpu_s": round(cpu, 1), "valid": told["valid"], "bad": told["bad"]}


def table(result: dict[str, Any]) -> str:
    """The standard job and the latency, as Markdown."""
    job, ours = result["standard_job"], result["standard_job"]["headrace"]["records_per_s"]
    rows = ["| engine | guarantee | records/s | headrace is | peak RSS, MB |", "|---|---|--:|--:|--:|"]
    for engine, found in job.items():
        guarantee = "at least once" if engine == "faust" else "exactly once"
        times = "" if engine == "headrace" else f"{ours / found['records_per_s']:.1f} ×"
        rows.append(f"| {engine} | {guarantee} | {found['records_per_s']:,} | {times} | {found['rss_mb']:,} |")
    rows += ["", "| latency at 5,000 records/s, exactly once | p50, ms | p99, ms | RSS, MB |", "|---|--:|--:|--:|"]
    rows += [f"| {engine} | {found['p50_ms']} | {found['p99_ms']} | {found['rss_mb']:,} |"
             for engine, found in result.get("latency", {}).items()]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SHARE))
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--no-connectors", action="store_true")
    parser.add_argument("--no-contracts", action="store_true")
    given = parser.parse_args()
    engines = given.only.split(",")
    WORK.mkdir(parents=True, exist_ok=True)
    with broker():
        import load

        topic = f"bench-flights-{uuid.uuid4().hex[:6]}"
        print(f"loading {given.records:,} flights …", file=sys.stderr)
        load.backlog(topic, given.records)
        for peer in set(engines) & set(PEERS):
            environment(peer)
        found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
        for at in range(given.rounds):
            for engine in engines:
                one = run_engine(engine, topic, int(given.records * SHARE[engine]))
                found[engine].append(one)
                told = f"{one['records_per_s']:,} records/s, {one['rss_mb']} MB, {one['cpu_s']} s of CPU"
                print(f"round {at + 1}: {engine} {told}", file=sys.stderr)
        load.check(topic, found)
        result: dict[str, Any] = {"standard_job": {
            engine: {**sorted(runs, key=lambda r: r["records_per_s"])[len(runs) // 2],
                     "records_per_s": round(statistics.median(r["records_per_s"] for r in runs)),
                     "rss_mb": max(r["rss_mb"] for r in runs)} for engine, runs in found.items()}}
        if not given.no_latency:
            import latency

            result["latency"] = latency.measure([e for e in engines if e in ("headrace", "hand_written")])
        if not given.no_connectors:
            import connect

            result["connectors"] = connect.measure(given.records, given.rounds)
            print(connect.table(result["connectors"]), end="\n\n")
        if not given.no_contracts:
            import contracts

            result["contracts"] = contracts.measure(topic, given.rounds)
            print(contracts.table(result["contracts"]), end="\n\n")
    if "headrace" in engines:
        ours = result["standard_job"]["headrace"]["records_per_s"]
        result["ratios"] = {e: round(ours / result["standard_job"][e]["records_per_s"], 2)
                            for e in engines if e != "headrace"}
        print(table(result))
        for engine, ratio in result["ratios"].items():
            print(f"{engine}: {ratio} × (goal {GOALS[engine]} ×) {'reached' if ratio >= GOALS[engine] else 'MISSED'}")
    (ROOT / ".headrace" / "bench.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
