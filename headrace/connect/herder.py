"""The worker's brain: connectors by name, what is wanted of them and how they are. Kafka Connect calls it the herder.

    target    what is wanted: RUNNING, PAUSED, STOPPED; kept in the store with the configuration
    status    how the connector and each task are, as the tasks themselves report it
 Changes of one connector happen one after the other; looking never waits for them. Tasks that fail are started again by
 themselves (headrace/connect/restart.py), but only once the store has taken down that they failed: a worker that was
 shut out learns it there, and ends instead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from headrace.connect import plugins, store
from headrace.connect.masks import masked, unmasked
from headrace.connect.plugins import Refused, Verdict
from headrace.connect.restart import Restarts
from headrace.connect.spec import Spec
from headrace.connect.state import Connector, Json, Running, Status, task_class
from headrace.connect.tasks import Task, task
from headrace.errors import Fenced, HeadraceError, UserError
from headrace.secrets import Scrubber, references, resolved, secrets_of
from headrace.settings import Settings

log = logging.getLogger("headrace.connect")
TARGETS = ("RUNNING", "PAUSED", "STOPPED")
JOIN_S = 30.0
TICK_S = 0.25
STORED_S = 40.0
STRIPES = 64
Maker = Callable[..., Task]


class Herder:
    """Every public method may be called from any thread; those that ask for a change raise Refused, and Fenced or
    BrokerError when it cannot be kept."""

    def __init__(self, settings: Settings, kept: store.Store, *, worker_id: str, group: str,
                 scrubber: Scrubber | None = None, make: Maker = task, clock: Callable[[], float] = time.time) -> None:
        self.settings, self.store, self.worker_id, self.group = settings, kept, worker_id, group
        self.scrubber = scrubber or Scrubber()
        self.ready = False
        self._make, self._clock = make, clock
        self._connectors: dict[str, Connector] = {}
        self._lock = threading.RLock()  # held for moments, never while something is waited for
        self._stripes = [threading.RLock() for _ in range(STRIPES)]
        self._end = threading.Event()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="herder")
        self._ticker = threading.Thread(target=self._tick, name="herder-restarts", daemon=True)

    # The worker's life ───────────────────────────────────────────────────────────────────────────────────────────────
    def start(self, first: Callable[[], None] = lambda: None) -> None:
        """Take up what the store has, do what is to be done `first`, and be ready. Raises BrokerError."""
        configs, statuses = self.store.open()
        for (kind, name, *_), declared in configs.items():
            if kind == "connector":
                one = Connector(name, declared["config"], declared["target"])
                one.topics = set(statuses.get(("topics", name), {}).get("topics", ()))
                one.tasks = {key[2]: Running(None, Status(restarts=Restarts.kept(told.get("auto_restart"))))
                             for key, told in statuses.items() if key[:2] == ("task", name)}
                self._connectors[name] = one
        for key in statuses:
            if key[0] in ("connector", "task", "topics") and key[1] not in self._connectors:
                self.store.put(store.STATUS, key, None)
        for name in list(self._connectors):
            self._pool.submit(self._begin, name)
        self._ticker.start()
        first()
        self.ready = True

    def stop(self) -> None:
        """End every task, after its batch in hand."""
        self._end.set()
        with self._lock:
            running = [r for one in self._connectors.values() for r in one.tasks.values() if r.task is not None]
        for one in running:
            if one.task is not None:
                one.task.stop()
        end = time.monotonic() + JOIN_S
        for one in running:
            if one.task is not None:
                one.task.join(max(0.0, end - time.monotonic()))
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._ticker.is_alive():
            self._ticker.join(JOIN_S)
        for name in self.names():
            self._tell_topics(name)
        self.store.close()

    def _begin(self, name: str) -> None:
        """A connector of the store, when the worker starts: its tasks begin, whatever state it was in."""
        with self.exclusively(name):
            one = self._connectors.get(name)
            if one is None or self._end.is_set():
                return
            before = {number: running.status.restarts for number, running in one.tasks.items()}
            try:
                self._take(one, plugins.validated(one.config, self.settings.project, self.group))
                self._launch(one, before)
            except (Refused, HeadraceError) as error:
                self._connector_state(one, "FAILED", self.scrubber.text(str(error)))

    # Looking ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def names(self) -> list[str]:
        with self._lock:
            return list(self._connectors)

    def info(self, name: str) -> Json:
        """GET /connectors/{name}"""
        one = self._known(name)
        with self._lock:
            return {"name": name, "config": masked(one.config, one.typed),
                    "tasks": [{"connector": name, "task": number} for number in sorted(one.tasks)], "type": one.kind}

    def config(self, name: str) -> dict[str, str]:
        one = self._known(name)
        return masked(one.config, one.typed)

    def spec(self, name: str) -> tuple[Connector, Spec]:
        """A connector, and its spec. Raises Refused when there is none."""
        one = self._known(name)
        if one.spec is None:
            raise Refused(400, f"Connector {name} has failed: {one.status.trace or 'its configuration does not hold'}")
        return one, one.spec

    def task_configs(self, name: str) -> list[Json]:
        """GET /connectors/{name}/tasks"""
        one = self._known(name)
        with self._lock:
            config = masked(one.config, one.typed) | ({"task.class": task_class(one.spec)} if one.spec else {})
            return [{"id": {"connector": name, "task": number}, "config": config} for number in sorted(one.tasks)]

    def status(self, name: str) -> Json:
        """GET /connectors/{name}/status"""
        with self._lock:
            one = self._known(name, "No status found for connector {}")
            return {"name": name, "connector": one.status.told(self.worker_id),
                    "tasks": [{"id": n, **one.tasks[n].status.told(self.worker_id)} for n in sorted(one.tasks)],
                    "type": one.kind}

    def task_status(self, name: str, number: int) -> Json:
        with self._lock:
            one = self._connectors.get(name)
            if one is None or number not in one.tasks:
                raise Refused(404, f"No status found for task {name}-{number}")
            return {"id": number, **one.tasks[number].status.told(self.worker_id)}

    def topics(self, name: str) -> list[str]:
        """The topics its tasks have written to or read from, since the worker or the list began."""
        with self._lock:
            one = self._connectors.get(name)
            if one is None:
                return []
            self._gather(one)
            return sorted(one.topics)

    def _known(self, name: str, otherwise: str = "Connector {} not found") -> Connector:
        """The connector. Of one that there is not, Kafka Connect says something else at nearly every endpoint."""
        with self._lock:
            one = self._connectors.get(name)
        if one is None:
            raise Refused(404, otherwise.format(name))
        return one

    # Changing ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def validate(self, name: str | None, config: Mapping[str, str | None]) -> Verdict:
        """What is right and wrong with a configuration. Masks stand for what the connector of this name has. Raises
        Refused where that cannot be told."""
        with self._lock:
            before = self._connectors.get(name) if name is not None else None
        try:
            given = unmasked(config, before.config if before else None, before.typed if before else ())
        except UserError as error:
            raise plugins.invalid([str(error)]) from None
        self.learn(given)
        return plugins.validated(given, self.settings.project, self.group)

    def learn(self, config: Mapping[str, str | None], typed: frozenset[str] = frozenset()) -> None:
        """What of a configuration no text may show from now on."""
        secrets = secrets_of(config, typed)
        for value in references({k: v for k, v in config.items() if v is not None}).values():
            try:
                secrets |= {resolved(value)}
            except HeadraceError:
                continue  # it is told where the configuration is checked
        self.scrubber.learn(secrets)

    def create(self, name: str, config: Mapping[str, str | None], target: str = "RUNNING") -> Json:
        """POST /connectors. Raises Refused: invalid (400), there already (409)."""
        return self._put(name, config, target, replace=False)[1]

    def put(self, name: str, config: Mapping[str, str | None]) -> tuple[bool, Json]:
        """PUT /connectors/{name}/config: whether it is new, and its info."""
        return self._put(name, config, None, replace=True)

    def patch(self, name: str, changes: Mapping[str, str | None]) -> Json:
        """PATCH /connectors/{name}/config: None takes a key away."""
        with self.exclusively(name):
            one = self._known(name)
            merged: dict[str, str | None] = {**one.config, **changes}
            return self._put(name, {k: v for k, v in merged.items() if changes.get(k, "") is not None}, None,
                             replace=True)[1]

    def _put(self, name: str, config: Mapping[str, str | None], target: str | None, *,
             replace: bool) -> tuple[bool, Json]:
        with self.exclusively(name):
            verdict = self.validate(name, {**config, "name": config.get("name", name)})
            spec = verdict.demand()
            with self._lock:
                before = self._connectors.get(name)
            if before is not None and not replace:
                raise Refused(409, f"Connector {name} already exists")
            tasks = self.info(name)["tasks"] if before is not None else []  # as yet: those to come have not begun
            one = Connector(name, dict(spec.raw), target or (before.target if before else "RUNNING"))
            self._take(one, verdict)
            self._keep(one)
            if before is not None:
                self._halt(before)
                one.topics = before.topics
                one.status = before.status
            with self._lock:
                self._connectors[name] = one
            told = self.info(name) | {"tasks": tasks}
            self._launch(one, {})
            return before is None, told

    def delete(self, name: str) -> None:
        with self.exclusively(name):
            one = self._known(name)
            self._await(self.store.put(store.CONFIGS, ("connector", name), None))
            self._halt(one)
            with self._lock:
                del self._connectors[name]
            for key in (("connector", name), ("topics", name)):
                self.store.put(store.STATUS, key, None)

    def pause(self, name: str) -> None:
        self._aim(name, "PAUSED")

    def resume(self, name: str) -> None:
        self._aim(name, "RUNNING")

    def stop_connector(self, name: str) -> None:
        self._aim(name, "STOPPED")

    def _aim(self, name: str, target: str) -> None:
        with self.exclusively(name):
            one = self._known(name, "Unknown connector {}")
            before, one.target = one.target, target
            try:
                self._keep(one)
            except HeadraceError:
                one.target = before
                raise
            if target == "STOPPED":
                self._halt(one)
            elif one.spec is not None:
                self._turn(one, before)
            if one.spec is not None or target == "STOPPED":
                self._connector_state(one, target)

    def _turn(self, one: Connector, before: str) -> None:
        """To PAUSED or RUNNING: a stopped connector has no tasks, and gets them when it is to run."""
        if one.target == "RUNNING" and not one.tasks:
            return self._launch(one, {})
        for number, running in list(one.tasks.items()):
            if running.task is None:
                continue
            if one.target == "PAUSED":
                running.task.pause()
            elif running.status.state == "STOPPED":  # it had come to its end: look again whether there is more
                self._start_task(one, number, running.status.restarts)
            else:
                running.task.resume()
        return None

    def restart(self, name: str, *, include_tasks: bool, only_failed: bool) -> Json | None:
        """POST …/restart: the plan, which is carried out later; None when it is done, the connector alone."""
        with self._lock:
            one = self._known(name, "Unknown connector: {}")
            whole = not only_failed or one.status.state == "FAILED"
            numbers = [n for n, r in one.tasks.items() if include_tasks and (
                not only_failed or r.status.state == "FAILED")]
            plan = self.status(name)
        if not include_tasks and not only_failed:
            self._restart(name, True, [])
            return None
        if whole:
            plan["connector"]["state"] = "RESTARTING"
        for told in plan["tasks"]:
            if told["id"] in numbers:
                told["state"] = "RESTARTING"
        self._pool.submit(self._restart, name, whole, numbers)
        return plan

    def _restart(self, name: str, whole: bool, numbers: list[int]) -> None:
        with self.exclusively(name):
            one = self._connectors.get(name)
            if one is None or self._end.is_set():
                return
            if whole and one.spec is None:
                self._begin(name)
                return
            if whole and one.target == "RUNNING" and not one.tasks:
                self._launch(one, {})
            elif whole:
                self._connector_state(one, one.target)
            for number in numbers:
                if number in one.tasks and one.target != "STOPPED":
                    self._start_task(one, number, Restarts())

    def restart_task(self, name: str, number: int) -> None:
        with self.exclusively(name):
            one = self._known(name, "Unknown connector: {}")
            if number not in one.tasks or one.spec is None:
                raise Refused(404, f"Unknown task: {name}-{number}")
            self._start_task(one, number, Restarts())

    def forget_topics(self, name: str) -> None:
        """PUT …/topics/reset"""
        with self._lock:
            one = self._connectors.get(name)
            if one is None:
                return
            for running in one.tasks.values():
                if running.task is not None:
                    running.task.done.topics.clear()
            one.topics = set()
        self._tell_topics(name)

    # Within a connector's stripe ─────────────────────────────────────────────────────────────────────────────────────
    def exclusively(self, name: str) -> threading.RLock:
        """Nothing changes in the connector meanwhile."""
        return self._stripes[hash(name) % STRIPES]

    def _take(self, one: Connector, verdict: Verdict) -> None:
        spec = verdict.demand()
        typed = frozenset(key.name for key in verdict.keys.values() if key.type == "PASSWORD")
        self.learn(one.config, typed)
        with self._lock:
            one.spec, one.kind, one.typed = spec, spec.kind, typed

    def _keep(self, one: Connector) -> None:
        self._await(self.store.put(store.CONFIGS, ("connector", one.name),
                                   {"config": one.config, "target": one.target}))

    def _await(self, kept: Future[None]) -> None:
        try:
            kept.result(STORED_S)
        except TimeoutError:
            raise Refused(500, "Request timed out. The worker is currently writing to the config topic") from None
        except Fenced as error:
            raise Refused(409, f"Cannot complete request: another worker has taken over. {error.what}") from None
        except HeadraceError as error:
            raise Refused(500, "Failed to write to config topic; this may be due to a transient error and the request "
                          f"can be safely retried: {error.what}") from None

    def _launch(self, one: Connector, before: Mapping[int, Restarts]) -> None:
        """The tasks, as its target wants them."""
        assert one.spec is not None
        if one.target != "STOPPED":
            for number in range(one.spec.tasks):
                self._start_task(one, number, before.get(number, Restarts()))
        for number in [n for n in one.tasks if one.target == "STOPPED" or n >= one.spec.tasks]:
            self._drop(one, number)
        self._connector_state(one, one.target)

    def _halt(self, one: Connector) -> None:
        """Stop the tasks, and forget them."""
        running = [r.task for r in one.tasks.values() if r.task is not None]
        for each in running:
            each.stop()
        for each in running:
            self._joined(one, each)
        self._gather(one)
        for number in list(one.tasks):
            self._drop(one, number)

    def _gather(self, one: Connector) -> None:
        """The topics that its tasks have met so far."""
        with self._lock:
            for running in one.tasks.values():
                if running.task is not None:
                    one.topics |= set(running.task.done.topics)

    def _drop(self, one: Connector, number: int) -> None:
        with self._lock:
            one.tasks.pop(number, None)
        self.store.put(store.STATUS, ("task", one.name, number), None)

    def _joined(self, one: Connector, each: Task) -> None:
        if not each.join(JOIN_S):
            log.error("a task does not end; it is left behind, shut out by its transactional id", extra={
                "connector": one.name})

    def _start_task(self, one: Connector, number: int, restarts: Restarts) -> None:
        """Another task in place of the one there was."""
        assert one.spec is not None
        old = one.tasks.get(number)
        if old is not None and old.task is not None:
            old.task.stop()
            self._joined(one, old.task)
            self._gather(one)
        if self._end.is_set():
            return
        running = Running(None, Status("UNASSIGNED", None, restarts))
        made = self._make(one.spec, number, self.settings,
                          lambda state, trace: self._reported(one, number, running, state, trace))
        running.task = made
        with self._lock:
            one.tasks[number] = running
        self._task_state(one, number, running.status)
        if one.target == "PAUSED":
            made.pause()
        made.start()

    # What the tasks say ──────────────────────────────────────────────────────────────────────────────────────────────
    def _reported(self, one: Connector, number: int, running: Running, state: str, trace: str | None) -> None:
        """Called from the task's thread. A task that was replaced says nothing any more."""
        with self._lock:
            if one.tasks.get(number) is not running:
                return
            status = running.status
            status.state = "STOPPED" if state == "ENDED" else state
            status.trace = self.scrubber.text(trace) if trace else None
            if state == "FAILED":
                fenced = isinstance(getattr(running.task, "error", None), Fenced)
                status.restarts = Restarts(status.restarts.count, status.restarts.last) if fenced else (
                    status.restarts.failed(self._clock()))
        self._task_state(one, number, status)
        if state == "FAILED":
            log.error("a task failed", extra={"connector": one.name, "task": number, "trace": status.trace,
                                              "auto_restart": status.restarts.told()})

    def _task_state(self, one: Connector, number: int, status: Status) -> None:
        status.kept = self.store.put(store.STATUS, ("task", one.name, number), status.told(self.worker_id))

    def _connector_state(self, one: Connector, state: str, trace: str | None = None) -> None:
        with self._lock:
            one.status = Status(state, trace)
        self.store.put(store.STATUS, ("connector", one.name), one.status.told(self.worker_id))

    def _tell_topics(self, name: str) -> None:
        topics = self.topics(name)
        self.store.put(store.STATUS, ("topics", name), {"topics": topics} if topics else None)

    # By itself ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def _tick(self) -> None:
        told: dict[str, list[str]] = {}
        while not self._end.wait(TICK_S):
            for name, number in self._due():
                self._pool.submit(self._restart_failed, name, number)
            for name in self.names():
                topics = self.topics(name)
                if told.get(name, []) != topics:
                    told[name] = topics
                    self._tell_topics(name)

    def _due(self) -> list[tuple[str, int]]:
        """Tasks to start again now: the store has it that they failed, so that nobody has shut this worker out."""
        now, found = self._clock(), []
        with self._lock:
            failed = [(one, number, running.status) for one in self._connectors.values() if one.target == "RUNNING"
                      for number, running in one.tasks.items() if running.status.state == "FAILED"]
            for one, number, status in failed:
                if status.kept is None or not status.kept.done() or not status.restarts.due(now):
                    continue
                error = status.kept.exception()
                if error is None:
                    status.state = "RESTARTING"
                    found.append((one.name, number))
                elif not isinstance(error, Fenced):  # Kafka was away: once more
                    self._task_state(one, number, status)
        return found

    def _restart_failed(self, name: str, number: int) -> None:
        with self.exclusively(name):
            one = self._connectors.get(name)
            if one is None or self._end.is_set() or number not in one.tasks or one.spec is None:
                return
            running = one.tasks[number]
            if running.status.state != "RESTARTING" or one.target != "RUNNING":
                return
            log.warning("a failed task is started again", extra={"connector": name, "task": number,
                                                                 "auto_restart": running.status.restarts.told()})
            self._start_task(one, number, running.status.restarts.restarted(self._clock()))
