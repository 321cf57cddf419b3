"""A stand-in for the API server, for what its documentation says and a dispatcher touches. Not the real one.

    POST jobs     fieldValidation=Strict against Kubernetes' own OpenAPI schemas (kubernetes-validate) → 400;
                  dryRun=All stores nothing; a name that is taken → 409; Warning headers, as Pod Security in mode warn
    GET, DELETE   a Job; GET pods by label
Faults are scripted: the next requests that match meet them, each once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes_validate import ValidationError, validate

from headrace.loop.dispatch.pods import restricted
from tests.contract.served import Quiet, serve

KUBERNETES = "1.37"


@dataclass
class Cluster:
    """What there is, what was asked for, and what shall go wrong."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    """(method, name or collection, dry run)"""
    faults: list[tuple[str, bool, str]] = field(default_factory=list)
    """(method, dry run, what): `500` before it is done, `500 done` after, `cut` and `slow` after, `403 quota` …"""
    warnings: list[str] = field(default_factory=list)
    pod_security: bool = False
    denied: set[str] = field(default_factory=set)
    """Methods, or `pods`, that this token may not use."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def created(self) -> list[str]:
        return [name for method, name, dry in self.asked if method == "POST" and not dry]

    def finish(self, name: str, *conditions: dict[str, Any], exit_code: int = 0, message: str = "") -> None:
        """The Job is over, as its controller would say it."""
        self.jobs[name]["status"] = {"conditions": list(conditions), "ready": 0}
        self.pods.append({
            "metadata": {"name": f"{name}-abcde", "labels": {"batch.kubernetes.io/job-name": name}},
            "status": {"containerStatuses": [{"name": "train", "state": {"terminated": {
                "exitCode": exit_code, "message": message, "finishedAt": "2026-11-22T12:00:00Z"}}}]}})


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": message}


@contextmanager
def cluster(token: str = "t0ken") -> Iterator[Cluster]:
    """A server on the loopback for the length of the block."""
    there = Cluster()

    class Handler(Quiet):
        def answer(self, code: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
            written = json.dumps(body).encode()
            self.send_response(code)
            for key, value in (("Content-Type", "application/json"), ("Content-Length", str(len(written))), *headers):
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(written)

        def handle_one(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            _, root, *rest = url.path.split("/")
            assert (root, rest[-1 if "pods" in rest else rest.index("jobs")]) in (("api", "pods"), ("apis", "jobs"))
            collection = "pods" if "pods" in rest else "jobs"
            name = body["metadata"]["name"] if self.command == "POST" else rest[-1]
            dry = query.get("dryRun") == "All"
            with there.lock:
                there.asked.append((self.command, name, dry))
                fault = next((f for f in there.faults if f[:2] == (self.command, dry)), None)
                if fault:
                    there.faults.remove(fault)
            how = fault[2] if fault else ""
            if self.headers.get("Authorization") != f"Bearer {token}":
                return self.answer(401, _status(401, "Unauthorized", "Unauthorized"))
            if {self.command, collection} & there.denied:
                return self.answer(403, _status(403, "Forbidden", f"cannot {self.command} {collection}"))
            if how == "500":
                return self.answer(500, _status(500, "InternalError", "etcdserver: leader changed"))
            if how == "403 quota":
                return self.answer(403, _status(403, "Forbidden", "jobs is forbidden: exceeded quota: jobs"))
            if how == "429":
                return self.answer(429, _status(429, "TooManyRequests", "slow down"), (("Retry-After", "7"),))
            done = self.done(collection, name, body, query, dry)
            if how == "500 done":
                return self.answer(500, _status(500, "Timeout", "request did not complete within the time"))
            if how == "slow":
                self.rfile.read(1)  # until the client has given up and hung up
            if how == "cut":
                self.close_connection = True
                return self.connection.close()
            return self.answer(*done)

        def done(self, collection: str, name: str, body: Any, query: dict[str, str], dry: bool) -> Any:
            with there.lock:
                if collection == "pods":
                    key, _, value = query["labelSelector"].partition("=")
                    return 200, {"kind": "PodList", "items": [p for p in there.pods
                                                              if p["metadata"]["labels"].get(key) == value]}
                if self.command == "POST":
                    return self.create(name, body, query, dry)
                if name not in there.jobs:
                    return 404, _status(404, "NotFound", f'jobs.batch "{name}" not found')
                if self.command == "DELETE":
                    assert query["propagationPolicy"] == "Background"
                    there.jobs.pop(name)
                    return 200, {"kind": "Status", "status": "Success"}
                return 200, there.jobs[name]

        def create(self, name: str, body: Any, query: dict[str, str], dry: bool) -> Any:
            assert query["fieldValidation"] == "Strict"
            try:
                validate(body, KUBERNETES, strict=True)
            except ValidationError as error:
                return 400, _status(400, "BadRequest", f"strict decoding error: {error.message}")
            if name in there.jobs:
                return 409, _status(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
            told = list(there.warnings)
            if there.pod_security and (problems := restricted(body["spec"]["template"]["spec"])):
                told.append(f'would violate PodSecurity "restricted:latest": {", ".join(problems)}')
            if not dry:
                there.jobs[name] = {**body, "status": {}}
            escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in told]
            return 201, body, tuple(("Warning", f'299 - "{text}"'.encode().decode("latin-1")) for text in escaped)

        do_GET = do_POST = do_DELETE = handle_one

    with serve(Handler) as there.url:
        yield there
