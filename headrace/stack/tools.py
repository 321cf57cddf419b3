"""Kafka's own command-line tools, run from the stack's jars: a second opinion on what we say of offsets and lag."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from headrace.errors import StackError
from headrace.stack.jars import fetch, pinned
from headrace.stack.java import SHORT_LIVED, command

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


def kafka_tool(tool: str, arguments: Sequence[str], *, timeout_s: float = 60.0) -> str:
    """What a tool of Kafka prints; `tool` is a name in TOOLS or a main class. About a second.

    Raises StackError when it fails, with what it said; MissingExtra without the extra “stack”.
    """
    jars = fetch({"kafka": pinned()["kafka"]})["kafka"]
    done = subprocess.run(command((*SHORT_LIVED, *LOGGING), jars, TOOLS.get(tool, tool), *arguments),
                          capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise StackError(f"{tool} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
