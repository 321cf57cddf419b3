"""The OpenAPI 3.1 document of the REST API: what each endpoint takes, and every answer it may give."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
JSON = "application/json"


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None, **more: Any) -> Json:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required),
            "additionalProperties": False, **more}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


TEXT: Json = {"type": "string"}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}
WHOLE: Json = {"type": "integer"}
STATE: Json = {"type": "string", "enum": ["UNASSIGNED", "RUNNING", "PAUSED", "FAILED", "RESTARTING", "STOPPED"]}
TYPE: Json = {"type": "string", "enum": ["source", "sink", "unknown"]}
SCALAR: Json = {"type": ["string", "null", "number", "boolean"]}
SWITCH: Json = {"type": "string", "default": "false", "description": "`true`; all else is false, as for Kafka Connect."}
_STATUS: tuple[Json, Json] = ({"state": STATE, "worker_id": TEXT, "version": TEXT_OR_NULL},
                              {"trace": TEXT, "auto_restart": _ref("AutoRestart")})
SCHEMAS: dict[str, Json] = {
    "Error": _object({"error_code": WHOLE, "message": TEXT_OR_NULL}),
    "ServerInfo": _object({"version": TEXT, "commit": TEXT, "kafka_cluster_id": TEXT_OR_NULL}),
    "Health": _object({"status": {"type": "string", "enum": ["healthy", "starting", "unhealthy"]},
                       "message": TEXT_OR_NULL}),
    "Config": {"type": "object", "additionalProperties": SCALAR, "description": "A connector's configuration: keys and "
               "texts. Secrets are shown as [hidden], and stay as they are when that is sent back."},
    "ConfigPatch": {"type": "object", "additionalProperties": SCALAR, "description": "Keys to change; null takes one "
                    "away."},
    "CreateConnector": _object({"name": TEXT, "config": _ref("Config")}, {"initial_state": {
        "type": ["string", "null"], "enum": ["RUNNING", "PAUSED", "STOPPED", None]}}),
    "TaskId": _object({"connector": TEXT, "task": WHOLE}),
    "ConnectorInfo": _object({"name": TEXT, "config": _ref("ShownConfig"), "tasks": _list(_ref("TaskId")),
                              "type": TYPE}),
    "ShownConfig": {"type": "object", "additionalProperties": TEXT},
    "AutoRestart": _object({"count": WHOLE, "last_at": TEXT_OR_NULL, "next_at": TEXT_OR_NULL}, description="Restarts "
                           "by the worker itself: so many in a row, the last, the next."),
    "ConnectorState": _object(*_STATUS),
    "TaskState": _object({"id": WHOLE, **_STATUS[0]}, _STATUS[1]),
    "ConnectorStatus": _object({"name": TEXT, "connector": _ref("ConnectorState"), "tasks": _list(_ref("TaskState")),
                                "type": TYPE}),
    "TaskInfo": _object({"id": _ref("TaskId"), "config": _ref("ShownConfig")}),
    "ActiveTopics": {"type": "object", "additionalProperties": _object({"topics": _list(TEXT)})},
    "Connectors": {"anyOf": [_list(TEXT), {"type": "object", "additionalProperties": _object({}, {
        "info": _ref("ConnectorInfo"), "status": _ref("ConnectorStatus")})}]},
    "Offset": _object({"partition": {"type": ["object", "null"]}, "offset": {"type": ["object", "null"]}}),
    "Offsets": _object({"offsets": _list(_ref("Offset"))}),
    "Message": _object({"message": TEXT}),
    "Plugin": _object({"class": TEXT, "type": TEXT, "version": TEXT}),
    "ConfigKey": _object({
        "name": TEXT, "type": TEXT, "required": {"type": "boolean"}, "default_value": TEXT_OR_NULL, "importance": TEXT,
        "documentation": TEXT, "group": TEXT_OR_NULL, "order": WHOLE, "order_in_group": WHOLE, "width": TEXT,
        "display_name": TEXT, "dependents": _list(TEXT)}),
    "ConfigValue": _object({"name": TEXT, "value": TEXT_OR_NULL, "recommended_values": _list(TEXT),
                            "errors": _list(TEXT), "visible": {"type": "boolean"}}),
    "Validation": _object({
        "name": TEXT, "error_count": WHOLE, "groups": _list(TEXT), "configs": _list(_object({
            "definition": {"anyOf": [_ref("ConfigKey"), {"type": "null"}]}, "value": _ref("ConfigValue")}))}),
    "LoggerLevel": _object({"level": TEXT, "last_modified": {"type": ["integer", "null"]}}),
    "LoggerLevels": {"type": "object", "additionalProperties": _ref("LoggerLevel")},
    "Level": {"type": "object", "properties": {"level": {"type": "string", "enum": [
        "OFF", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"]}}, "required": ["level"],
        "additionalProperties": SCALAR},
    "Document": {"type": "object"},
}
ERRORS = {
    400: "The request is malformed, or the configuration is invalid.", 404: "There is no such thing.",
    405: "Not with this method.", 409: "It exists already, or another worker has taken over.",
    413: "The body is too large.", 415: "The body's content type is not application/json.",
    500: "The worker cannot do it now: Kafka does not answer.", 503: "The worker is starting.",
}
PARAMETERS: dict[str, Json] = {
    "connector": {"name": "connector", "in": "path", "required": True, "schema": TEXT, "description": "Its name."},
    "task": {"name": "task", "in": "path", "required": True,
             "schema": {"type": "integer", "minimum": 0, "maximum": 999}, "description": "The task's number, from 0."},
    "plugin": {"name": "plugin", "in": "path", "required": True, "schema": TEXT, "description": "A class, or its "
               "alias."},
    "logger": {"name": "logger", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 200},
               "description": "A logger's name; `root` is above all."},
    "expand": {"name": "expand", "in": "query", "schema": _list(TEXT), "explode": True,
               "description": "Tell this of each connector: `info`, `status`; both may be said."},
    "includeTasks": {"name": "includeTasks", "in": "query", "schema": SWITCH, "description": "Restart the tasks, too."},
    "onlyFailed": {"name": "onlyFailed", "in": "query", "schema": SWITCH,
                   "description": "Restart only what has failed."},
    "connectorsOnly": {"name": "connectorsOnly", "in": "query", "schema": {**SWITCH, "default": "true"},
                       "description": "Leave out transforms, predicates and converters."},
    "scope": {"name": "scope", "in": "query", "schema": {"type": "string", "default": "worker"},
              "description": "`worker`, or `cluster`, of which there is one worker."},
}
_ONE, _PLUGIN = "/connectors/{connector}", "/connector-plugins/{plugin}"
OPERATIONS: dict[tuple[str, str], tuple[str, dict[int, Json | None], Json | None, tuple[str, ...], tuple[int, ...]]] = {
    # (method, path): summary, answers, body, query parameters, errors beside 405, 500 and 503
    ("GET", "/"): ("The worker", {200: _ref("ServerInfo")}, None, (), ()),
    ("GET", "/health"): ("Is the worker well?", {code: _ref("Health") for code in (200, 500, 503)}, None, (), ()),
    ("GET", "/openapi.json"): ("This document", {200: _ref("Document")}, None, (), ()),
    ("GET", "/connectors"): ("Every connector", {200: _ref("Connectors")}, None, ("expand",), ()),
    ("POST", "/connectors"): ("Create a connector", {201: _ref("ConnectorInfo")}, _ref("CreateConnector"), (),
                              (400, 409, 413, 415)),
    ("GET", _ONE): ("A connector", {200: _ref("ConnectorInfo")}, None, (), (404,)),
    ("DELETE", _ONE): ("Delete a connector; its offsets stay", {204: None}, None, (), (404, 409)),
    ("GET", f"{_ONE}/config"): ("Its configuration", {200: _ref("ShownConfig")}, None, (), (404,)),
    ("PUT", f"{_ONE}/config"): ("Create or change a connector", {200: _ref("ConnectorInfo"),
                                201: _ref("ConnectorInfo")}, _ref("Config"), (), (400, 404, 409, 413, 415)),
    ("PATCH", f"{_ONE}/config"): ("Change some keys", {200: _ref("ConnectorInfo")}, _ref("ConfigPatch"), (),
                                  (400, 404, 409, 413, 415)),
    ("GET", f"{_ONE}/status"): ("How it is", {200: _ref("ConnectorStatus")}, None, (), (404,)),
    ("GET", f"{_ONE}/tasks"): ("Its tasks", {200: _list(_ref("TaskInfo"))}, None, (), (404,)),
    ("GET", f"{_ONE}/tasks/{{task}}/status"): ("How a task is", {200: _ref("TaskState")}, None, (), (404,)),
    ("POST", f"{_ONE}/tasks/{{task}}/restart"): ("Restart a task", {204: None}, None, (), (404, 409)),
    ("POST", f"{_ONE}/restart"): ("Restart a connector", {202: _ref("ConnectorStatus"), 204: None}, None,
                                  ("includeTasks", "onlyFailed"), (404, 409)),
    ("PUT", f"{_ONE}/pause"): ("Pause it; its tasks keep what they hold", {202: None}, None, (), (404, 409)),
    ("PUT", f"{_ONE}/resume"): ("Let it run", {202: None}, None, (), (404, 409)),
    ("PUT", f"{_ONE}/stop"): ("Stop it; it has no tasks then", {204: None}, None, (), (404, 409)),
    ("GET", f"{_ONE}/topics"): ("Topics it has written to or read from", {200: _ref("ActiveTopics")}, None, (), (404,)),
    ("PUT", f"{_ONE}/topics/reset"): ("Begin that list anew", {202: None}, None, (), (404,)),
    ("GET", f"{_ONE}/offsets"): ("Where it stands", {200: _ref("Offsets")}, None, (), (400, 404)),
    ("PATCH", f"{_ONE}/offsets"): ("Set where it goes on; it must be STOPPED", {200: _ref("Message")}, _ref("Offsets"),
                                   (), (400, 404, 409, 413, 415)),
    ("DELETE", f"{_ONE}/offsets"): ("Let it begin anew; it must be STOPPED", {200: _ref("Message")}, None, (),
                                    (400, 404, 409)),
    ("GET", "/connector-plugins"): ("The classes there are", {200: _list(_ref("Plugin"))}, None, ("connectorsOnly",),
                                    ()),
    ("GET", f"{_PLUGIN}/config"): ("What a class can be told", {200: _list(_ref("ConfigKey"))}, None, (), (404,)),
    ("PUT", f"{_PLUGIN}/config/validate"): ("Check a configuration", {200: _ref("Validation")}, _ref("Config"), (),
                                            (400, 404, 413, 415)),
    ("GET", "/admin/loggers"): ("Every logger's level", {200: _ref("LoggerLevels")}, None, (), ()),
    ("GET", "/admin/loggers/{logger}"): ("A logger's level", {200: _ref("LoggerLevel")}, None, (), (404,)),
    ("PUT", "/admin/loggers/{logger}"): ("Set the level of a logger and of those below it", {
        200: _list(TEXT), 204: None}, _ref("Level"), ("scope",), (400, 404, 413, 415)),
}


def document(version: str) -> Json:
    """The whole document, for headrace of this version."""
    paths: dict[str, Json] = {}
    for (method, path), (summary, answers, body, query, errors) in OPERATIONS.items():
        named = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
        operation: Json = {
            "summary": summary, "operationId": _identifier(method, path), "tags": [path.split("/")[1] or "worker"],
            "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in (*named, *query)],
            "responses": {**{str(code): _error(code) for code in sorted({*errors, 500, 503} - set(answers))},
                          **{str(code): _answer(code, schema) for code, schema in answers.items()}}}
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
        paths.setdefault(path, {})[method.lower()] = operation
    return {"openapi": "3.1.0", "info": {
        "title": "headrace Connect", "version": version, "description": "Kafka Connect's REST API, by headrace's own "
        "worker."}, "paths": paths, "components": {"schemas": SCHEMAS, "parameters": PARAMETERS}}


def _identifier(method: str, path: str) -> str:
    words = [word for word in path.replace("{", "").replace("}", "").replace(".", "-").split("/") if word]
    return "_".join([method.lower(), *words]).replace("-", "_")


def _error(code: int) -> Json:
    return {"description": ERRORS[code], "content": {JSON: {"schema": _ref("Error")}}}


def _answer(code: int, schema: Json | None) -> Json:
    said = {200: "Here it is.", 201: "Created.", 202: "Accepted.", 204: "Done.", 500: "Unwell.", 503: "Starting."}[code]
    made: Json = {"description": said}
    if schema is not None:
        made["content"] = {JSON: {"schema": schema}}
    if code == 201:
        made["headers"] = {"Location": {"schema": TEXT, "description": "Where the connector is."}}
    return made
