"""Java's connectors as people's files name them: which are known, and which of ours is near one.

Only names: whether a Kafka Connect worker has a class, the worker itself says. Kafka Connect takes a class by its full
name, by its simple name, and by that without “Connector”.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from headrace.marked import closest

APACHE = "org.apache.kafka.connect."
POSTGRES_SINK = "the sink `postgres` (by upsert, each record once), where the database is PostgreSQL"
POSTGRES_SOURCE = "the source `postgres` (by a growing column, so without deletes)"
OBJECTS = "the sinks `file` and `deltalake` (Parquet, each record once)"
FILES = "the source `file` (a file or a watched folder)"
NEAR: Mapping[str, str] = {
    f"{APACHE}file.FileStreamSourceConnector": "the source `file`",
    f"{APACHE}file.FileStreamSinkConnector": "the sink `file`",
    f"{APACHE}mirror.MirrorSourceConnector": "",
    f"{APACHE}mirror.MirrorCheckpointConnector": "",
    f"{APACHE}mirror.MirrorHeartbeatConnector": "",
    f"{APACHE}tools.MockSinkConnector": "",
    f"{APACHE}tools.MockSourceConnector": "",
    f"{APACHE}tools.SchemaSourceConnector": "",
    f"{APACHE}tools.VerifiableSinkConnector": "",
    f"{APACHE}tools.VerifiableSourceConnector": "",
    "io.confluent.connect.jdbc.JdbcSinkConnector": POSTGRES_SINK,
    "io.aiven.connect.jdbc.JdbcSinkConnector": POSTGRES_SINK,
    "io.debezium.connector.jdbc.JdbcSinkConnector": POSTGRES_SINK,
    "io.confluent.connect.jdbc.JdbcSourceConnector": f"{POSTGRES_SOURCE}, where the database is PostgreSQL",
    "io.aiven.connect.jdbc.JdbcSourceConnector": f"{POSTGRES_SOURCE}, where the database is PostgreSQL",
    "io.debezium.connector.postgresql.PostgresConnector": POSTGRES_SOURCE,
    "io.debezium.connector.mysql.MySqlConnector": "",
    "io.debezium.connector.mongodb.MongoDbConnector": "",
    "io.debezium.connector.sqlserver.SqlServerConnector": "",
    "io.debezium.connector.oracle.OracleConnector": "",
    "io.confluent.connect.s3.S3SinkConnector": OBJECTS,
    "io.aiven.kafka.connect.s3.AivenKafkaConnectS3SinkConnector": OBJECTS,
    "io.confluent.connect.gcs.GcsSinkConnector": OBJECTS,
    "io.aiven.kafka.connect.gcs.GcsSinkConnector": OBJECTS,
    "io.confluent.connect.azure.blob.AzureBlobStorageSinkConnector": OBJECTS,
    "io.confluent.connect.hdfs.HdfsSinkConnector": OBJECTS,
    "io.confluent.connect.hdfs3.Hdfs3SinkConnector": OBJECTS,
    "io.tabular.iceberg.connect.IcebergSinkConnector": "the sink `deltalake` (a table format, too)",
    "org.apache.iceberg.connect.IcebergSinkConnector": "the sink `deltalake` (a table format, too)",
    "com.getindata.kafka.connect.delta.DeltaSinkConnector": "the sink `deltalake`",
    "io.confluent.connect.s3.source.S3SourceConnector": FILES,
    "com.github.jcustenborder.kafka.connect.spooldir.SpoolDirCsvSourceConnector": FILES,
    "com.github.jcustenborder.kafka.connect.spooldir.SpoolDirJsonSourceConnector": FILES,
    "com.github.mmolimar.kafka.connect.fs.FsSourceConnector": FILES,
    "io.streamthoughts.kafka.connect.filepulse.source.FilePulseSourceConnector": FILES,
    "io.confluent.kafka.connect.datagen.DatagenConnector": "the source `datagen`",
    "com.github.jcustenborder.kafka.connect.datagen.DatagenSourceConnector": "the source `datagen`",
    "io.confluent.connect.http.HttpSinkConnector": "the sink `http`",
    "io.aiven.kafka.connect.http.HttpSinkConnector": "the sink `http`",
    "io.confluent.connect.http.HttpSourceConnector": "the source `http`",
    "com.github.castorm.kafka.connect.http.HttpSourceConnector": "the source `http`",
    "com.platformatory.kafka.connect.http.HttpSourceConnector": "the source `http`",
    "io.confluent.connect.elasticsearch.ElasticsearchSinkConnector": "",
    "io.aiven.connect.elasticsearch.ElasticsearchSinkConnector": "",
    "io.aiven.kafka.connect.opensearch.OpensearchSinkConnector": "",
    "com.snowflake.kafka.connector.SnowflakeSinkConnector": "",
    "com.wepay.kafka.connect.bigquery.BigQuerySinkConnector": "",
    "com.mongodb.kafka.connect.MongoSinkConnector": "",
    "com.mongodb.kafka.connect.MongoSourceConnector": "",
    "com.datastax.oss.kafka.sink.CassandraSinkConnector": "",
    "com.redis.kafka.connect.RedisSinkConnector": "",
    "com.clickhouse.kafka.connect.ClickHouseSinkConnector": "",
    "com.couchbase.connect.kafka.CouchbaseSinkConnector": "",
    "io.lenses.streamreactor.connect.mqtt.source.MqttSourceConnector": "",
    "io.confluent.connect.replicator.ReplicatorSourceConnector": "",
}
"""Class → which of ours is near it; empty where none is."""
_JAVA = re.compile(r"(?:[a-z_]\w*\.){2,}[A-Z$]\w*|[A-Z]\w*Connector")


def aliases(name: str) -> tuple[str, str, str]:
    """What a Java class is called by: in full, by its simple name, and by that without “Connector”."""
    simple = name.rpartition(".")[2]
    return name, simple, simple.removesuffix("Connector") or simple


def known(text: str) -> str | None:
    """The full name of the known class that `text` names, by alias too."""
    return next((name for name in NEAR if text in aliases(name)), None)


def is_java(text: str) -> bool:
    """Whether it reads as a Java class, whoever has it."""
    return not text.startswith("headrace.") and (known(text) is not None or _JAVA.fullmatch(text) is not None)


def mistyped(text: str) -> str | None:
    """The class of Kafka's own that was meant; of those we know every one, so that what is not there is an error."""
    own = [name for name in NEAR if name.startswith(APACHE)]
    return closest(text, own) or own[0] if text.startswith(APACHE) and text not in own else None


def near(text: str) -> str:
    """“near it, of ours: …”, “did you mean …?”, or “none of ours is near it”, of a Java class."""
    name = known(text)
    if name is None and (meant := closest(text, NEAR)) and _distance(text, meant):
        return f"did you mean “{meant}”?"
    if name is None:  # another vendor's of the same name
        name = next((one for one in NEAR if aliases(one)[2] == aliases(text)[2]), text)
    hint = NEAR.get(name, "")
    return f"near it, of ours: {hint}" if hint else "none of ours is near it"


def _distance(text: str, meant: str) -> bool:
    """Only a slip: the same vendor, and nearly the same letters."""
    import difflib

    return (text.split(".")[:2] == meant.split(".")[:2]
            and difflib.SequenceMatcher(None, text, meant).ratio() > 0.93)
