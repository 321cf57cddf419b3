"""What is known of one version: from MLflow's record of its run, and from what the gate said of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.control import Verdict, to_spans
from headrace.loop.card import Facts
from headrace.loopview.history import History, Placed

if TYPE_CHECKING:
    from headrace.loop.models import Logged, Version


def facts(version: Version, logged: Logged | None, history: History) -> Facts:
    """For `headrace.loop.card`. What neither MLflow nor the gate has said stays None: not known."""
    known: dict[str, Any] = dict(logged.facts) if logged else {}
    gate = gate_of(history, version)
    verdict = gate.event if gate else None
    return Facts(
        model=version.model, version=version.version, owner=(verdict.owner or None) if verdict else None,
        spec=dict(logged.spec) if logged else None, trigger=version.trigger, reason=known.get("reason"),
        run=version.mlflow_run, trained_at=datetime.fromtimestamp(logged.at_ms / 1000, UTC) if logged else None,
        ranges=to_spans(known["ranges"]) if "ranges" in known else None, rows=known.get("rows"),
        digest=known.get("data_digest"), schemas=_schemas(known), metrics=dict(version.metrics) or None,
        slices=_slices(verdict, version.candidate) if verdict else None,
        decision=_decision(verdict, version.version) if verdict else None,
        reasons=list(verdict.reasons) if verdict else None,
        baseline=(f"version {verdict.champion}" if verdict.champion else "no champion") if verdict else None,
        flow="/".join(filter(None, (known.get("flow"), known.get("step")))) or None,
        git_commit=known.get("git_commit"), lock_digest=known.get("lock_digest"),
        image_digest=known.get("image_digest"), versions=_versions(known), cpu_s=known.get("cpu_s"),
        memory_peak_bytes=known.get("peak_bytes"))


def gate_of(history: History, version: Version) -> Placed[Verdict] | None:
    """What the gate said last of the retraining that the version came of."""
    found = [each for each in history.verdicts if each.event.about == "gate" and each.event.model == version.model
             and (each.event.trigger == version.trigger if version.trigger else each.event.version == version.version)]
    return found[-1] if found else None


def _decision(verdict: Verdict, version: str) -> str:
    if verdict.version == version:
        return "blessed" if verdict.ok else "not blessed"
    return f"not chosen: version {verdict.version} was blessed" if verdict.ok else "not blessed"


def _slices(verdict: Verdict, candidate: str | None) -> list[dict[str, Any]]:
    """The gate's `<candidate>.change.<column>=<value>`, as rows."""
    begin = f"{candidate}.change."
    return [{"slice": name.removeprefix(begin), "change": value} for name, value in sorted(verdict.measures.items())
            if name.startswith(begin) and "=" in name]


def _schemas(known: dict[str, Any]) -> dict[str, int] | None:
    """The ids of the writers' schemas; MLflow's record does not say which topic had which."""
    if "schema_ids" not in known:
        return None
    return {f"writer {n}": number for n, number in enumerate(known["schema_ids"], 1)}


def _versions(known: dict[str, Any]) -> dict[str, str] | None:
    packages = {name: said for name, said in (known.get("packages") or {}).items() if said}
    return ({"python": known["python"]} if known.get("python") else {}) | packages or None
