"""Connectors from Kafka Connect's configuration files, run here in Python: no JVM, no Connect cluster.

Read spec.py, then tasks.py, then source_task.py and sink_task.py: that is how a connector runs.

    config.py       a file in any of the three formats → its keys with their lines, its spec, findings; wild.py: classes
                    that are not ours
    spec.py         a flat map of keys → `Spec`: class, own keys, common keys (spec_keys.py), secrets (spec_secrets.py)
    tasks.py        a task: a thread, and the states it tells
    source_task.py  pull, transform, encode (source_out.py), and one transaction with the position
    sink_task.py    poll (sink_group.py), decode and transform (sink_in.py), put; sink_dead.py writes dead letters
    errors_*.py     bad records, and outages
    offsets.py      where connectors stand: listed, altered, reset; the topic headrace.connect.offsets
    overrides.py    properties of Java's Kafka clients as librdkafka's
    standalone.py   connectors of files, in this process, to their end
    server.py       a worker: herder.py, store.py (what it was told, in Kafka), rest/ (Kafka Connect's API)
    shape.py        rows of a file as records of a topic: `headrace produce`
    pace.py         keeping to a rate
"""
