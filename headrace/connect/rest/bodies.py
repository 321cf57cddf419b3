"""Bodies of requests, read strictly: what is no JSON of the right shape is the client's mistake, status 400."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from headrace.connect.herder import TARGETS
from headrace.connect.plugins import Refused

BODY_BYTES_MAX = 1 << 20
Config = dict[str, str | None]


async def config(request: web.Request) -> Config:
    """A connector's configuration: an object whose values are text, or null. Numbers and booleans become text."""
    return _config(await _body(request, texts=True), "the body")


async def creation(request: web.Request) -> tuple[str, Config, str]:
    """POST /connectors: name, configuration, initial state."""
    body = _object(await _body(request, texts=True), "the body", {"name", "config", "initial_state"})
    if body.get("config") is None:
        raise Refused(400, "“config” is missing: the connector's configuration")
    state = body.get("initial_state")
    target = "RUNNING" if state is None else str(state).upper()
    if target not in TARGETS:
        raise Refused(400, f"“initial_state” is {state!r}, and must be one of {', '.join(TARGETS)}")
    name = body.get("name")
    if name is not None and not isinstance(name, str):
        raise Refused(400, "“name” must be text")
    return (name or "").strip(), _config(body["config"], "“config”"), target


async def positions(request: web.Request) -> list[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """PATCH …/offsets: (partition, offset) each."""
    body = _object(await _body(request), "the body", {"offsets"})
    given = body.get("offsets") or []
    if not isinstance(given, list):
        raise Refused(400, "“offsets” must be an array")
    found = []
    for number, one in enumerate(given):
        one = _object(one, f"“offsets[{number}]”", {"partition", "offset"})
        pair = [one.get("partition"), one.get("offset")]
        if not all(part is None or isinstance(part, dict) for part in pair):
            raise Refused(400, f"“offsets[{number}]”: partition and offset must be objects, or null")
        found.append((pair[0], pair[1]))
    return found


async def level(request: web.Request) -> str:
    """PUT /admin/loggers/{logger}"""
    said = _config(await _body(request, texts=True), "the body").get("level")
    if said is None:
        raise Refused(400, "Desired 'level' parameter was not specified in request.")
    return said


async def _body(request: web.Request, *, texts: bool = False) -> Any:
    """The body's JSON. With `texts` numbers are given as they are written."""
    if request.content_type != "application/json":
        raise Refused(415, "HTTP 415 Unsupported Media Type")
    raw = await request.read()
    number = str if texts else None
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, parse_int=number, parse_float=number)
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {type(error).__name__ if not str(error) else error}") from None
    return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _object(data: Any, what: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise Refused(400, f"{what} must be a JSON object")
    unknown = sorted(set(data) - known)
    if unknown:
        raise Refused(400, f"{what}: there is no field {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return data


def _config(data: Any, what: str) -> Config:
    if not isinstance(data, dict):
        raise Refused(400, f"{what} must be a JSON object of text")
    made: Config = {}
    for key, value in data.items():
        if isinstance(value, dict | list):
            raise Refused(400, f"{what}: the value of “{key}” must be text")
        made[key] = str(value).lower() if isinstance(value, bool) else value
    return made
