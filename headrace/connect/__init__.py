"""Connectors from Kafka Connect's configuration files, run here in Python: no JVM, no Connect cluster.

    config.py       a file in any of the three formats → name, connector class, validated keys, or findings
    offsets.py      where each connector's source stands: records of the compacted topic headrace.connect.offsets
    standalone.py   one transactional producer a connector: a batch and its source offset together, or neither
    shape.py        rows of a file as records of a topic: encoded, keyed, with their time (also `headrace produce`)
"""
