"""The examples in connectors/, with the flows they belong to: CSV and webhook in, Delta table and HTTP out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pytest

from headrace import codec
from headrace.codec import Decoder
from headrace.control import Alert
from headrace.registry import Registry
from headrace.settings import Settings
from tests.integration.connectkit import until
from tests.integration.held import encode, read, write
from tests.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
AT = "2013-01-01T{:02}:15:00Z"
CSV = """\
flight_id,scheduled_at,sched_dep_time,sched_arr_time,carrier,flight,tailnum,origin,dest,distance
1,2013-01-01 10:15:00.000Z,515,819,UA,1545,N14228,EWR,IAH,1400
2,2013-01-01 11:00:00.000Z,600,920,UA,194,N29129,JFK,LAX,2475
3,2013-01-02 20:00:00.000Z,soon,1627,MQ,4475,N1,LGA,RDU,431
"""
SECRET = "what-only-senders-know"


def staged(project: Settings, kind: str, name: str, renamed: dict[str, str]) -> Path:
    """A file of ours in the test's project, with topics and names of this test's own."""
    path = project.project / kind / name
    text = (ROOT / kind / name).read_text()
    for before, after in renamed.items():
        assert before in text, f"{name} has no {before}"
        text = text.replace(before, after)
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def schemas(project: Settings) -> None:
    shutil.copytree(ROOT / "schemas", project.project / "schemas", dirs_exist_ok=True)


def headrace(project: Settings, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "headrace", *arguments], cwd=project.project, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(project: Settings, topic: str) -> list[dict[str, Any]]:
    """What a topic of Avro records holds, by the schema they were written with."""
    registry = Registry(project.registry_client())
    values = [m.value() for m in read(project, topic)]
    if not values:
        return []
    written = registry.schema(int.from_bytes(values[0][1:5], "big"))
    rows: list[dict[str, Any]] = Decoder(written, registry.schema).decode(values).rows.to_pylist()
    return rows


def scored(number: int) -> dict[str, Any]:
    schema = codec.load(ROOT / "schemas" / "scored.avsc")
    given = {"flight_id": number, "scheduled_at": pa.scalar(1_357_035_300_000, pa.timestamp("ms", "UTC")).as_py(),
             "sched_dep_time": 515, "sched_arr_time": 819, "carrier": "UA", "flight": 1545, "origin": "EWR",
             "dest": "IAH", "distance": 1400, "hour": 5.25, "weekday": 1.0, "p_late": 0.25, "model_version": "1",
             "weather_hour": pa.scalar(1_357_031_700_000, pa.timestamp("ms", "UTC")).as_py()}
    return {name: given.get(name) for name in schema.arrow.names}


def test_flights_of_a_csv_file_run_through_the_flow(project: Settings, topic: Callable[..., str]) -> None:
    source = topic("departures", partitions=4)
    file = staged(project, "connectors", "flights-departures.json", {
        "flights.departures": source, '"flights-departures"': f'"{source}"'})
    staged(project, "flows", "departures.yaml", {"flow: departures": f"flow: {source.replace('.', '-')}",
                                                 "flights.": f"{source}.", f"{source}.departures": source})
    (project.project / ".headrace/demo").mkdir(parents=True)
    (project.project / ".headrace/demo/departures.csv").write_text(CSV)
    [told] = map(json.loads, headrace(project, "connect", str(file), "--json").splitlines())
    assert (told["records"], told["rejected"]) == (2, 1)
    [dead] = read(project, f"{source}.dead")
    assert dead.value().startswith(b"3,")
    headrace(project, "run", "flows/departures.yaml", "--drain")
    assert [row["route"] for row in records(project, f"{source}.short")] == ["EWR-IAH"]
    assert [row["route"] for row in records(project, f"{source}.long")] == ["JFK-LAX"]


def test_predictions_become_rows_of_a_delta_table_once(project: Settings, topic: Callable[..., str]) -> None:
    from deltalake import DeltaTable

    name = topic("flights.scored")
    file = staged(project, "connectors", "scored-delta.json", {
        "[0-9a-f]{4}": name.rpartition(".")[2], '"scored-delta"': f'"delta-{name}"'})
    schema = codec.load(ROOT / "schemas" / "scored.avsc")
    write(project, name, encode(project, name, [scored(n) for n in range(500)], schema))
    headrace(project, "connect", str(file), "--drain")
    write(project, name, encode(project, name, [scored(n) for n in range(500, 600)], schema))
    headrace(project, "connect", str(file), "--drain")
    table = DeltaTable(project.project / f".headrace/tables/{name}")
    rows = pa.table(table.to_pyarrow_table())
    assert sorted(zip(rows["flight_id"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True)) == [
        (n, n) for n in range(600)]
    assert table.metadata().partition_columns == ["origin"]


@contextmanager
def running(project: Settings, file: Path, **env: str) -> Iterator[None]:
    """`headrace connect FILE`, until SIGTERM."""
    process = subprocess.Popen([sys.executable, "-m", "headrace", "connect", str(file)], cwd=project.project,
                               env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_landings_that_are_posted_meet_their_predictions(project: Settings, topic: Callable[..., str]) -> None:
    predictions, landings = topic("scored"), topic("landings")
    port, labelled = free_port(), f"{landings}.labelled"
    file = staged(project, "connectors", "webhook-in.json", {
        "flights.landings": landings, '"webhook-in"': f'"{landings}"', "8088": str(port)})
    staged(project, "flows", "outcomes.yaml", {
        "flow: outcomes": f"flow: {landings.replace('.', '-')}", "topic: flights.scored": f"topic: {predictions}",
        "topic: flights.landings": f"topic: {landings}", "flights.": f"{landings}."})
    write(project, predictions, encode(project, predictions, [scored(n) for n in range(3)],
                                       codec.load(ROOT / "schemas" / "scored.avsc")), [b"0", b"1", b"2"])
    url, known = f"http://127.0.0.1:{port}/landings", {"X-Webhook-Secret": SECRET}
    posted = [{"flight_id": n, "arrived_at": AT.format(14), "arr_delay": 11 * n} for n in (1, 2)]
    with running(project, file, LANDINGS_SECRET=SECRET):
        until(lambda: answers(url))
        for landing in (posted[0], posted[0], posted[1]):  # one of them twice, as after an answer that was lost
            key = {"Idempotency-Key": str(landing["flight_id"])}
            assert httpx2.post(url, json=landing, headers=known | key, timeout=30).status_code == 200
        assert httpx2.post(url, json={"flight_id": 1}, headers=known, timeout=30).status_code == 400
        assert httpx2.post(url, json=posted[0], timeout=30).status_code == 401
    headrace(project, "run", "flows/outcomes.yaml", "--drain")
    assert sorted((row["flight_id"], row["arr_delay"], row["p_late"]) for row in records(project, labelled)) == [
        (1, 11, 0.25), (2, 22, 0.25)]


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=30).status_code > 0
    except httpx2.TransportError:
        return False


def test_alerts_are_sent_to_a_pager(project: Settings, topic: Callable[..., str],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    name, heard = topic("alerts"), list[tuple[str, Any]]()

    class Pager(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.headers["Idempotency-Key"], json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    at = pa.scalar(1_360_368_000_000, pa.timestamp("ms", "UTC")).as_py()
    alert = {"id": "a", "flow": "arrivals", "step": "watch", "topic": "flights.arrivals", "partition": 0, "window": 39,
             "offset_first": 0, "offset_last": 9, "window_start": at, "window_end": at, "measure": "share",
             "condition": "dep_time IS NULL", "rows": 10, "matched": 6, "observed": 0.6, "threshold": 0.35, "at": at,
             "severity": "critical", "message": "a storm"}
    write(project, name, [*encode(project, name, [alert], Alert.schema()), b"no alert"])
    file = staged(project, "connectors", "alerts-http.json", {"headrace.alerts": name, '"alerts-http"': f'"{name}"'})
    with ThreadingHTTPServer(("127.0.0.1", 0), Pager) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ALERTS_URL", f"http://127.0.0.1:{server.server_port}/pager")
        [told] = map(json.loads, headrace(project, "connect", str(file), "--drain", "--json").splitlines())
        server.shutdown()
    assert (told["records"], told["rejected"]) == (1, 1)
    [(key, body)] = heard
    assert (key, body["severity"], body["matched"]) == (f"{name}/{name}/0/0-0", "critical", 6)
    assert [dead.value() for dead in read(project, f"{name}.dead")] == [b"no alert"]
