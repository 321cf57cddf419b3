"""Kafka's own command-line tools, run from the stack's jars: a second opinion on what we say of offsets and lag."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.errors import StackError
from headrace.settings import Settings
from headrace.stack.jars import fetch, pinned
from headrace.stack.java import SHORT_LIVED, command
from headrace.stack.javaclient import java_client, properties
from headrace.stack.secure import write_private

TOOLS: Mapping[str, str] = {
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-transactions": "org.apache.kafka.tools.TransactionsCommand",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-dump-log": "org.apache.kafka.tools.DumpLogSegments",
}
"""What the scripts in Kafka's bin/ start."""
LOGGING = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=error",)


def kafka_tool(tool: str, arguments: Sequence[str], *, settings: Settings | None = None,
               timeout_s: float = 60.0) -> str:
    """What a tool of Kafka prints; `tool` is a name in TOOLS or a main class. About a second.

    With `settings` it is told the cluster and how to log in. Raises StackError when it fails, with what it said;
    MissingExtra without the extra “stack”.
    """
    jars = fetch({"kafka": pinned()["kafka"]})["kafka"]
    with tempfile.TemporaryDirectory(prefix="headrace-") as temporary:
        where: list[str] = []
        if settings is not None:
            login = Path(temporary) / "client.properties"
            write_private(login, properties(java_client(settings.kafka)))
            where = ["--bootstrap-server", settings.client()["bootstrap.servers"], "--command-config", str(login)]
        done = subprocess.run(command((*SHORT_LIVED, *LOGGING), jars, TOOLS.get(tool, tool), *where, *arguments),
                              capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise StackError(f"{tool} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
