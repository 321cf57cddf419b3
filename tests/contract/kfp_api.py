"""A stand-in for the Kubeflow Pipelines API (v2beta1), for what a dispatcher touches of it. Not the real one.

    POST   /apis/v2beta1/runs                   every field must be one that `kfp_server_api` knows, of its type; like
                                                the real one, it lets in any number of runs of one name
    GET    /apis/v2beta1/runs                   filter (EQUALS on display_name only), pages
    POST   /apis/v2beta1/runs/{run_id}:terminate
Faults are scripted: the next requests that match meet them, each once.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api

from tests.contract.served import Quiet, serve

PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "object": (object,),
                                      "datetime": (str,)}


def unknown(kind: str, value: Any, where: str = "run") -> Iterator[str]:
    """What the client's own model of `kind` has no place for."""
    if kind in PLAIN:
        if not isinstance(value, PLAIN[kind]):
            yield f"{where} is no {kind}"
    elif collection := re.fullmatch(r"list\[(.+)\]|dict\(str, (.+)\)", kind):
        items = enumerate(value) if collection[1] else value.items()
        for key, each in items:
            yield from unknown(collection[1] or collection[2], each, f"{where}.{key}")
    else:
        model = getattr(kfp_server_api, kind)
        if isinstance(value, str):
            if value not in model.allowable_values:
                yield f"{where}: there is no {value}"
            return
        fields = {wire: model.openapi_types[name] for name, wire in model.attribute_map.items()}
        for key, each in value.items():
            if key not in fields:
                yield f"{where}.{key} is unknown"
            else:
                yield from unknown(fields[key], each, f"{where}.{key}")


@dataclass
class Pipelines:
    """The runs there are, and what shall go wrong."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    """(method, what): `500` before it is done, `500 done`, `cut`, `slow`, `garbage` after, `401`, `429`."""
    posts: int = 0
    page_size: int = 100
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def named(self, **changes: Any) -> dict[str, Any]:
        """The only run, changed."""
        assert len(self.runs) == 1
        self.runs[0].update(changes)
        return self.runs[0]


@contextmanager
def pipelines() -> Iterator[Pipelines]:
    """A server on the loopback for the length of the block."""
    there = Pipelines()

    class Handler(Quiet):
        def answer(self, code: int, body: Any) -> None:
            written = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def handle_one(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            with there.lock:
                there.posts += self.command == "POST"
                fault = next((f for f in there.faults if f[0] == self.command), None)
                if fault:
                    there.faults.remove(fault)
                how = fault[1] if fault else ""
                if how in ("500", "401", "429"):
                    return self.answer(int(how), {"error": how, "code": 13, "message": how, "details": []})
                code, done = self.done(url.path, query, body)
            if how == "slow":
                self.rfile.read(1)  # until the client has given up and hung up
            if how == "cut":
                self.close_connection = True
                return self.connection.close()
            if how == "garbage":
                return self.answer(200, b"<html>a proxy's page</html>")
            return self.answer(*((504, {"message": "upstream request timeout"}) if how == "500 done" else (code, done)))

        def done(self, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
            if ended := re.fullmatch(r"/apis/v2beta1/runs/([^/:]+):terminate", path):
                run = next(each for each in there.runs if each["run_id"] == ended[1])
                run["state"] = "CANCELING"
                return 200, {}
            assert path == "/apis/v2beta1/runs"
            return self.create(body) if self.command == "POST" else self.list(query)

        def create(self, body: Any) -> tuple[int, Any]:
            wrong = list(unknown("V2beta1Run", body))
            if not body.get("display_name"):
                wrong.append("The run name is empty")
            if ("pipeline_spec" in body) == ("pipeline_version_reference" in body):
                wrong.append("one of pipeline_spec and pipeline_version_reference")
            if wrong:
                return 400, {"code": 3, "message": "; ".join(wrong), "details": []}
            there.runs.append({**body, "run_id": str(uuid.uuid4()), "state": "PENDING",
                               "created_at": f"2026-11-22T12:00:{len(there.runs):02d}Z"})
            return 200, there.runs[-1]

        def list(self, query: dict[str, str]) -> tuple[int, Any]:
            (predicate,) = json.loads(query["filter"])["predicates"]
            assert list(unknown("V2beta1Predicate", predicate)) == []
            assert (predicate["operation"], predicate["key"]) == ("EQUALS", "display_name")
            found = [each for each in there.runs if each["display_name"] == predicate["string_value"]]
            start = int(query.get("page_token") or 0)
            end = start + min(int(query["page_size"]), there.page_size)
            return 200, {"runs": found[start:end], "total_size": len(found),
                         **({"next_page_token": str(end)} if end < len(found) else {})}

        do_GET = do_POST = handle_one

    with serve(Handler) as there.url:
        yield there
