"""The schema registry, any with Confluent's API: schemas by id, kept for ever, and what a push needs.

An id that the registry says it does not have raises UnknownSchema: its records are rejects. A registry that cannot be
asked raises RegistryUnreachable, both Retriable and RegistryError: its records wait. Other refusals: RegistryError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from weakref import finalize

from headrace.codec import AvroSchema, UnknownSchema, parse
from headrace.errors import RegistryError, Retriable, SchemaError

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

TIMEOUT_S = 5.0
RETRY_AFTER_S = 2.0
AWAY_TIMES = 2.0
"""A registry that gave no answer for so long is left alone for as long, so many times: what needs none goes on."""
UNKNOWN_FOR_S = 10.0
"""How long an id that the registry lacked is not asked for again: a batch of them must not be a batch of requests."""
BOUNDS = {"timeout": TIMEOUT_S, "max.retries": 2, "retries.wait.ms": 100, "retries.max.wait.ms": 500}
NO_SUCH_THING = {40401: "subject", 40402: "version", 40403: "schema"}

T = TypeVar("T")


class RegistryUnreachable(Retriable, RegistryError):
    """No answer, or one that says “later”."""


class Registry:
    """One registry. `properties` are SchemaRegistryClient's; nothing is asked before the first call."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self.properties = dict(properties)
        parts = urlsplit(str(properties.get("url", "")))
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))  # for messages: no password
        self._schemas: dict[int, AvroSchema] = {}
        self._unknown: dict[int, float] = {}
        self._away: RegistryUnreachable | None = None
        self._away_until = 0.0

    @cached_property
    def client(self) -> SchemaRegistryClient:
        """The client, made on first use: it takes half a second to import. Raises RegistryError for bad properties."""
        from confluent_kafka.schema_registry import SchemaRegistryClient

        try:
            client = SchemaRegistryClient({**BOUNDS, **self.properties})
            finalize(self, client.close)  # its connections end with this registry, which nobody has to close
            return client
        except (ValueError, TypeError, OSError) as error:
            raise RegistryError(f"the registry's settings are wrong: {error}",
                                hint="see [registry] in headrace.toml, and HEADRACE_REGISTRY") from error

    def schema(self, schema_id: int) -> AvroSchema:
        """The schema of an id. Raises UnknownSchema, SchemaError (not Avro), RegistryUnreachable, RegistryError."""
        if schema_id in self._schemas:
            return self._schemas[schema_id]
        if monotonic() - self._unknown.get(schema_id, -UNKNOWN_FOR_S) < UNKNOWN_FOR_S:
            raise UnknownSchema(schema_id)
        found = self._found(schema_id)
        if found is None:
            self._unknown[schema_id] = monotonic()
            raise UnknownSchema(schema_id)
        self._schemas[schema_id] = self._parse(found, f"schema {schema_id} of {self.url}")
        return self._schemas[schema_id]

    def _found(self, schema_id: int) -> Schema | None:
        """The answer to one id. While the registry is known to be away it is not asked: each question costs seconds."""
        begun = monotonic()
        if self._away is not None and begun < self._away_until:
            raise RegistryUnreachable(self._away.what, retry_after_s=self._away_until - begun, hint=self._away.hint)
        try:
            found = self._ask(lambda: self.client.get_schema(schema_id))
        except RegistryUnreachable as error:
            now = monotonic()
            error.retry_after_s = max(error.retry_after_s, AWAY_TIMES * (now - begun))
            self._away, self._away_until = error, now + error.retry_after_s
            raise
        self._away = None
        return found

    def register(self, subject: str, schema: AvroSchema) -> int:
        """The id of a schema under a subject; the one it had, if it was there. Raises SchemaError when it is refused
        as incompatible, RegistryUnreachable, RegistryError."""
        number = self._ask(lambda: self.client.register_schema(subject, _avro(schema)), subject=subject)
        assert isinstance(number, int), "a registration is answered with an id"
        self._schemas[number] = schema
        return number

    def latest(self, subject: str) -> tuple[int, int, AvroSchema] | None:
        """(id, version, schema) of a subject's latest version; None when there is no such subject."""
        self.client.clear_latest_caches()  # the client would keep the first answer for ever
        found = self._ask(lambda: self.client.get_latest_version(subject))
        if found is None:
            return None
        return found.schema_id, found.version, self._parse(found.schema, f"{subject} version {found.version}")

    def versions(self, schema_id: int) -> list[tuple[str, int]]:
        """(subject, version) of everything that an id is registered as; [] when there is no such id."""
        found = self._ask(lambda: self.client.get_schema_versions(schema_id)) or []
        return sorted((str(each.subject), int(each.version or 0)) for each in found)

    def compatible(self, subject: str, schema: AvroSchema) -> list[str]:
        """Why this schema must not follow the subject's latest one, by the subject's own rule; [] when it may.

        A subject without a rule is held to BACKWARD: what is in the topic stays readable.
        """
        from headrace.codec.compat import problems

        latest = self.latest(subject)
        if latest is None:
            return []
        level = self.level(subject)
        if level != "NONE":
            accepted = self._ask(lambda: self.client.test_compatibility_all_versions(subject, _avro(schema)))
            if accepted is not False:
                return []
        why = [] if level.startswith("FORWARD") else [
            f"version {latest[1]}'s records could not be read: {p}" for p in problems(schema, latest[2])]
        if level.startswith(("FORWARD", "FULL")):
            why += [f"readers of version {latest[1]} could not go on: {p}" for p in problems(latest[2], schema)]
        return why if why or level == "NONE" else [
            f"the registry refuses it by {subject}'s rule {level}, because of a version before the latest"]

    def level(self, subject: str) -> str:
        """The compatibility rule of a subject: BACKWARD, FORWARD, FULL, …_TRANSITIVE or NONE."""
        found = self._ask(lambda: self.client.get_compatibility(subject))
        return str(found or self._ask(lambda: self.client.get_compatibility(None)) or "NONE")

    def _ask(self, question: Callable[[], T], *, subject: str | None = None) -> T | None:
        """The answer; None when the registry says that there is no such thing. Every other failure gets its error."""
        from confluent_kafka.schema_registry.common._httpx_compat import httpx  # httpx2 or httpx, as the client has it
        from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

        try:
            return question()
        except SchemaRegistryError as error:
            if error.error_code in NO_SUCH_THING:
                return None
            raise self._refusal(error.http_status_code, error.error_message, subject) from error
        except (httpx.HTTPError, httpx.InvalidURL, OAuthTokenError, OSError) as error:
            raise RegistryUnreachable(
                f"no answer from the schema registry at {self.url}: {str(error) or type(error).__name__}",
                retry_after_s=RETRY_AFTER_S,
                hint="is it running (`headrace status`), and is HEADRACE_REGISTRY right?") from error
        except ValueError as error:  # an answer that is no JSON: another server
            raise RegistryError(f"what answers at {self.url} is no schema registry: {error}",
                                hint=_WRONG_PLACE) from error

    def _refusal(self, status: int, message: str, subject: str | None) -> RegistryError | SchemaError:
        """The error for an HTTP status that is no success."""
        if status in (409, 422):
            return SchemaError(f"the registry refuses the schema{f' for {subject}' if subject else ''}: {message}",
                               hint="`headrace schemas check` says which field and why")
        if status in (401, 403):
            return RegistryError(f"the schema registry at {self.url} refuses us: {message} ({status})",
                                 hint="see basic.auth.user.info in the [registry] table of headrace.toml")
        if status >= 500 or status in (408, 429):
            return RegistryUnreachable(f"the schema registry at {self.url} cannot answer: {message} ({status})",
                                       retry_after_s=RETRY_AFTER_S, hint="look at its log")
        said = str(message or "not found")[:200]
        return RegistryError(f"what answers at {self.url} is no schema registry: {said} ({status})", hint=_WRONG_PLACE)

    def _parse(self, found: Schema, where: str) -> AvroSchema:
        if found.schema_type != "AVRO":
            raise SchemaError(f"{where}: a {found.schema_type} schema; headrace reads Avro")
        known = [self._parse(self._referenced(r.subject, r.version), f"{where}, reference {r.name}").text
                 for r in found.references or []]
        return parse(found.schema_str or "", where=where, known=known)

    def _referenced(self, subject: str, version: int) -> Schema:
        registered = self._ask(lambda: self.client.get_version(subject, version))
        if registered is None:
            raise SchemaError(f"a schema refers to {subject} version {version}, which the registry does not have")
        return registered.schema


_WRONG_PLACE = "the address ends in the path of Confluent's API, e.g. …/apis/ccompat/v7 for Apicurio"


def _avro(schema: AvroSchema) -> Schema:
    from confluent_kafka.schema_registry import Schema

    return Schema(schema.text, "AVRO")
