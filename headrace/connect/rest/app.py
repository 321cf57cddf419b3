"""The aiohttp application: routes, and the shape of every answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from aiohttp import web

from headrace import __version__
from headrace.connect import openapi, plugins, positions
from headrace.connect.herder import Herder
from headrace.connect.plugins import Refused
from headrace.connect.rest import bodies
from headrace.connect.rest.loggers import Loggers
from headrace.errors import HeadraceError

log = logging.getLogger("headrace.connect.rest")
THREADS = 16
INT_MAX = 1 << 31
HEALTH = {
    200: ("healthy", "Worker has completed startup and is ready to handle requests."),
    503: ("starting", "Worker is still starting up."),
    500: ("unhealthy", "Worker was unable to handle this request and may be unable to handle other requests."),
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(herder: Herder, *, cluster_id: str | None = None) -> web.Application:
    """The REST API of a worker. `cluster_id` is Kafka's, for GET /."""
    api = Api(herder, cluster_id)
    app = web.Application(middlewares=[api.guard], client_max_size=bodies.BODY_BYTES_MAX)
    for (method, path), handler in api.routes().items():
        for spelling in {path, path.rstrip("/") + "/"}:
            app.router.add_route(method, spelling, handler)
    app.on_cleanup.append(api.close)
    return app


class Api:
    """Handlers, each for one endpoint. What may wait is done in a thread."""

    def __init__(self, herder: Herder, cluster_id: str | None) -> None:
        self.herder, self.cluster_id, self.loggers = herder, cluster_id, Loggers()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="rest")

    def routes(self) -> dict[tuple[str, str], Handler]:
        one, plugin = "/connectors/{connector}", "/connector-plugins/{plugin}"
        return {
            ("GET", "/"): self.about, ("GET", "/health"): self.health, ("GET", "/openapi.json"): self.document,
            ("GET", "/connectors"): self.names, ("POST", "/connectors"): self.create,
            ("GET", one): self.info, ("DELETE", one): self.delete,
            ("GET", f"{one}/config"): self.config, ("PUT", f"{one}/config"): self.put,
            ("PATCH", f"{one}/config"): self.patch, ("GET", f"{one}/status"): self.status,
            ("GET", f"{one}/tasks"): self.tasks, ("GET", f"{one}/tasks/{{task}}/status"): self.task_status,
            ("POST", f"{one}/tasks/{{task}}/restart"): self.restart_task, ("POST", f"{one}/restart"): self.restart,
            ("PUT", f"{one}/pause"): self.pause, ("PUT", f"{one}/resume"): self.resume,
            ("PUT", f"{one}/stop"): self.stop, ("GET", f"{one}/topics"): self.topics,
            ("PUT", f"{one}/topics/reset"): self.forget_topics, ("GET", f"{one}/offsets"): self.offsets,
            ("PATCH", f"{one}/offsets"): self.alter_offsets, ("DELETE", f"{one}/offsets"): self.reset_offsets,
            ("GET", "/connector-plugins"): self.plugins, ("GET", f"{plugin}/config"): self.plugin_config,
            ("PUT", f"{plugin}/config/validate"): self.validate,
            ("GET", "/admin/loggers"): self.all_loggers, ("GET", "/admin/loggers/{logger}"): self.logger,
            ("PUT", "/admin/loggers/{logger}"): self.set_logger,
        }

    async def close(self, _: web.Application) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    # Every answer ────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def guard(self) -> Any:
        """Errors in Kafka Connect's form, and nothing secret in them."""
        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except Refused as refused:
                return self._error(refused.status, refused.message)
            except web.HTTPException as error:
                allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
                return self._error(error.status, f"HTTP {error.status} {error.reason}", allow)
            except HeadraceError as error:
                log.error("a request failed", extra={"path": request.path, "why": str(error)})
                return self._error(500, str(error))
            except Exception:
                log.exception("a request failed", extra={"path": request.path})
                return self._error(500, "Internal Server Error")
        return guarded

    def _error(self, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        return reply({"error_code": status, "message": self.herder.scrubber.text(message)}, status, headers)

    async def _do(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not self.herder.ready:
            raise Refused(503, HEALTH[503][1])
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **options))

    # The worker ──────────────────────────────────────────────────────────────────────────────────────────────────────
    async def about(self, request: web.Request) -> web.Response:
        return reply({"version": __version__, "commit": "unknown", "kafka_cluster_id": self.cluster_id})

    async def health(self, request: web.Request) -> web.Response:
        ailing = self.herder.store.ailing() if self.herder.ready else None
        status = 503 if not self.herder.ready else 500 if ailing else 200
        word, message = HEALTH[status]
        said = self.herder.scrubber.text(f"{message} {ailing or ''}".strip())
        return reply({"status": word, "message": said}, status)

    async def document(self, request: web.Request) -> web.Response:
        return reply(openapi.document(__version__))

    # Connectors ──────────────────────────────────────────────────────────────────────────────────────────────────────
    async def names(self, request: web.Request) -> web.Response:
        names = self.herder.names()
        if "expand" not in request.query:
            return reply(names)
        told: dict[str, dict[str, Any]] = {}
        known = {"info": self.herder.info, "status": self.herder.status}
        for name in names:
            try:
                told[name] = {what: known[what](name) for what in request.query.getall("expand") if what in known}
            except Refused:
                continue  # deleted meanwhile
        return reply(told)

    async def create(self, request: web.Request) -> web.Response:
        name, config, target = await bodies.creation(request)
        info = await self._do(self.herder.create, name, _named(name, config), target)
        return reply(info, 201, _location(request, name))

    async def info(self, request: web.Request) -> web.Response:
        return reply(self.herder.info(_connector(request)))

    async def config(self, request: web.Request) -> web.Response:
        return reply(self.herder.config(_connector(request)))

    async def put(self, request: web.Request) -> web.Response:
        name = _connector(request)
        config = _named(name, await bodies.config(request))
        created, info = await self._do(self.herder.put, name, config)
        return reply(info, 201, _location(request, name)) if created else reply(info)

    async def patch(self, request: web.Request) -> web.Response:
        name, changes = _connector(request), await bodies.config(request)
        self.herder.info(name)
        if "name" in changes:
            _named(name, changes)
        return reply(await self._do(self.herder.patch, name, changes))

    async def delete(self, request: web.Request) -> web.Response:
        await self._do(self.herder.delete, _connector(request))
        return web.Response(status=204)

    async def status(self, request: web.Request) -> web.Response:
        return reply(self.herder.status(_connector(request)))

    async def tasks(self, request: web.Request) -> web.Response:
        return reply(self.herder.task_configs(_connector(request)))

    async def task_status(self, request: web.Request) -> web.Response:
        return reply(self.herder.task_status(_connector(request), _task(request)))

    async def restart_task(self, request: web.Request) -> web.Response:
        await self._do(self.herder.restart_task, _connector(request), _task(request))
        return web.Response(status=204)

    async def restart(self, request: web.Request) -> web.Response:
        plan = await self._do(self.herder.restart, _connector(request), include_tasks=_true(request, "includeTasks"),
                              only_failed=_true(request, "onlyFailed"))
        return web.Response(status=204) if plan is None else reply(plan, 202)

    async def pause(self, request: web.Request) -> web.Response:
        await self._do(self.herder.pause, _connector(request))
        return web.Response(status=202)

    async def resume(self, request: web.Request) -> web.Response:
        await self._do(self.herder.resume, _connector(request))
        return web.Response(status=202)

    async def stop(self, request: web.Request) -> web.Response:
        await self._do(self.herder.stop_connector, _connector(request))
        return web.Response(status=204)

    async def topics(self, request: web.Request) -> web.Response:
        name = _connector(request)
        return reply({name: {"topics": self.herder.topics(name)}})

    async def forget_topics(self, request: web.Request) -> web.Response:
        await self._do(self.herder.forget_topics, _connector(request))
        return web.Response(status=202)

    async def offsets(self, request: web.Request) -> web.Response:
        return reply(await self._do(positions.told, self.herder, _connector(request)))

    async def alter_offsets(self, request: web.Request) -> web.Response:
        changes = await bodies.positions(request)
        return reply(await self._do(positions.alter, self.herder, _connector(request), changes))

    async def reset_offsets(self, request: web.Request) -> web.Response:
        return reply(await self._do(positions.reset, self.herder, _connector(request)))

    # Plugins ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    async def plugins(self, request: web.Request) -> web.Response:
        only = request.query.get("connectorsOnly", "true").lower() == "true"
        return reply(await self._do(plugins.listed, self.herder.settings.project, connectors_only=only))

    async def plugin_config(self, request: web.Request) -> web.Response:
        return reply(await self._do(plugins.defined, _part(request, "plugin"), self.herder.settings.project))

    async def validate(self, request: web.Request) -> web.Response:
        plugin, config = _part(request, "plugin"), await bodies.config(request)
        if not await self._do(plugins.same_plugin, plugin, config, self.herder.settings.project):
            raise Refused(400, f"Included connector type {config['connector.class']} does not match request type "
                          f"{plugin}")
        verdict = await self._do(self.herder.validate, config.get("name"), config)
        return reply(self._scrubbed(verdict.told()))

    def _scrubbed(self, told: dict[str, Any]) -> dict[str, Any]:
        """Without the secrets that an error may repeat."""
        for one in told["configs"]:
            one["value"]["errors"] = self.herder.scrubber.data(one["value"]["errors"])
        return told

    # Loggers ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    async def all_loggers(self, request: web.Request) -> web.Response:
        return reply(self.loggers.all())

    async def logger(self, request: web.Request) -> web.Response:
        return reply(self.loggers.one(_part(request, "logger")))

    async def set_logger(self, request: web.Request) -> web.Response:
        changed = self.loggers.set(_part(request, "logger"), await bodies.level(request))
        cluster = request.query.get("scope", "worker").lower() == "cluster"  # the one worker is the whole cluster
        return web.Response(status=204) if cluster else reply(changed)


def reply(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """JSON, however odd the texts in it are."""
    body = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def _part(request: web.Request, name: str) -> str:
    return str(request.match_info[name])


def _connector(request: web.Request) -> str:
    return _part(request, "connector")


def _task(request: web.Request) -> int:
    text = _part(request, "task")
    digits = text[1:] if text[:1] in "+-" else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 11 and -INT_MAX <= int(text) < INT_MAX):
        raise web.HTTPNotFound
    return int(text)


def _true(request: web.Request, name: str) -> bool:
    return str(request.query.get(name, "")).lower() == "true"


def _named(name: str, config: bodies.Config) -> bodies.Config:
    """The configuration with its connector's name. Raises Refused when it says another."""
    given = config.get("name")
    if given is not None and given != name:
        raise Refused(400, f"Connector name configuration ({given}) doesn't match connector name in the URL ({name})")
    return {**config, "name": name}


def _location(request: web.Request, name: str) -> dict[str, str]:
    return {"Location": f"{request.scheme}://{request.host}/connectors/{quote(name, safe='')}"}
