"""Kafka's offsets in the database: the table `headrace_offsets`, written in the transaction of the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.files.places import Place
from headrace.pg.table import DDL_LOCK

TABLE = "headrace_offsets"
MAKE = f"""
SELECT pg_advisory_xact_lock({DDL_LOCK});
CREATE TABLE IF NOT EXISTS {TABLE} (connector text NOT NULL, topic text NOT NULL, partition integer NOT NULL,
    next bigint NOT NULL, PRIMARY KEY (connector, topic, partition))"""
READ = f"SELECT topic, partition, next FROM {TABLE} WHERE connector = %s AND next >= 0"
PLACES = "unnest(%s::text[], %s::int[]) AS _ (topic, partition)"
BEGIN = f"""
INSERT INTO {TABLE} SELECT %s, topic, partition, -1 FROM {PLACES} ORDER BY topic, partition ON CONFLICT DO NOTHING"""
LOCK = f"""
SELECT topic, partition, next FROM {TABLE} WHERE connector = %s AND (topic, partition) IN (SELECT * FROM {PLACES})
ORDER BY topic, partition FOR UPDATE"""
WRITE = f"""
UPDATE {TABLE} AS had SET next = now.next
FROM unnest(%s::text[], %s::int[], %s::bigint[]) AS now (topic, partition, next)
WHERE had.connector = %s AND had.topic = now.topic AND had.partition = now.partition AND had.next < now.next"""
FORGET = f"DELETE FROM {TABLE} WHERE connector = %s AND topic = %s AND partition = %s"
SET = f"""
INSERT INTO {TABLE} VALUES (%s, %s, %s, %s)
ON CONFLICT (connector, topic, partition) DO UPDATE SET next = EXCLUDED.next"""


def make(cursor: Any) -> None:
    """The table, where it is absent: to ask first takes fewer rights."""
    if cursor.execute("SELECT to_regclass(%s)", [TABLE]).fetchone()[0] is None:
        cursor.execute(MAKE)


def read(cursor: Any, connector: str) -> dict[Place, int]:
    """Where each of its partitions goes on."""
    make(cursor)
    return {(topic, partition): at for topic, partition, at in cursor.execute(READ, [connector]).fetchall()}


def lock(cursor: Any, connector: str, ends: Mapping[Place, int]) -> dict[Place, int]:
    """What is stored of these partitions, which nobody else changes until the transaction ends; -1 where nothing is."""
    places = [topic for topic, _ in sorted(ends)], [partition for _, partition in sorted(ends)]
    found = cursor.execute(LOCK, [connector, *places]).fetchall()
    if len(found) < len(ends):
        cursor.execute(BEGIN, [connector, *places])  # waits for another who does the same
        found = cursor.execute(LOCK, [connector, *places]).fetchall()
    return {(topic, partition): at for topic, partition, at in found}


def write(cursor: Any, connector: str, ends: Mapping[Place, int]) -> None:
    """Forwards only: who is behind has stored nothing."""
    order = sorted(ends)  # whoever locks several rows must do so in one order
    cursor.execute(WRITE, [[topic for topic, _ in order], [partition for _, partition in order],
                           [ends[place] for place in order], connector])


def change(cursor: Any, connector: str, positions: Mapping[Place, int | None]) -> None:
    """None forgets a partition."""
    make(cursor)
    for (topic, partition), at in positions.items():
        given = [connector, topic, partition]
        cursor.execute(*((FORGET, given) if at is None else (SET, [*given, at])))
