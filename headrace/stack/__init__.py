"""The embedded stack: a real Kafka broker and a real schema registry, on a Java that pip installs.

    jars.py       what to download, held to pinned checksums, kept in the user's cache folder
    java.py       the JRE
    cluster.py    how many brokers, and whether clients log in: kept with the data
    kafka.py      its KRaft nodes           registry.py   Apicurio on a file store
    secure.py     keys, users and rules of access; javaclient.py tells Java clients how to log in
    connect.py    the real Kafka Connect, where it is wanted
    supervise.py  one process: start it detached, find it again, stop it
    lifecycle.py  all together: up, down, status
    tools.py      Kafka's own command-line tools, from the same jars
    containers.py the same two for those who have Docker; agrees with docker-compose.yml
"""

from __future__ import annotations
