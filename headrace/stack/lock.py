"""For maintainers: resolve the versions below anew and write checksums.json. Run as `python -m headrace.stack.lock`.

Users never run this: what they download is what a maintainer resolved once, reviewed and committed.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from headrace.stack.jars import digest, file_sha256

KAFKA, REGISTRY = "4.3.1", "3.3.3"
KAFKA_TREE = (f"org.apache.kafka:kafka_2.13:{KAFKA}", "org.slf4j:slf4j-simple:1.7.36")
KAFKA_ALONE = (f"org.apache.kafka:kafka-tools:{KAFKA}",)
"""Without what it depends on: that is Kafka Connect with Jetty and Jersey, 46 jars none of our tools load."""
CONNECT_TREE = tuple(f"org.apache.kafka:{artifact}:{KAFKA}" for artifact in (
    "connect-runtime", "connect-file", "connect-json", "connect-transforms", "connect-mirror",
    "connect-basic-auth-extension"))
CONNECT_ALONE = ("org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",)
"""Kafka's own choice of logging; the levels that its REST API sets are those of log4j, which kafka's bundle has."""
REGISTRY_ALONE = (f"io.apicurio:apicurio-registry-app:{REGISTRY}:all:tar.gz",)


def _sums(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _alone(maven: Any, coordinate: str) -> Path:
    group, artifact, version, *rest = coordinate.split(":")
    return Path(maven.project(group, artifact).at_version(version).artifact(*(rest or ("", "jar"))).resolve())


def _tree(maven: Any, coordinates: tuple[str, ...], alone: tuple[str, ...]) -> dict[str, Path]:
    """Jars by coordinate: of a tree with all it depends on, and of what stands alone."""
    import jgo

    found = (f"{a.groupId}:{a.artifactId}:{a.version}" for a in jgo.resolve("+".join(coordinates))
             if a.packaging == "jar")
    return {c: _alone(maven, c) for c in (*found, *alone)}


def _gathered(folder: Path, jars: dict[str, Path]) -> Path:
    folder.mkdir(parents=True)
    for path in jars.values():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def resolve(work: Path) -> dict[str, Any]:
    """What checksums.json should say, resolved and downloaded afresh under `work`."""
    from jgo.maven import MavenContext

    maven = MavenContext(repo_cache=work / "repository", local_repos=[])
    kafka = _tree(maven, KAFKA_TREE, KAFKA_ALONE)
    shared = {c.rpartition(":")[0] for c in kafka}  # whichever version: one of each on the class path
    connect = {c: path for c, path in _tree(maven, CONNECT_TREE, CONNECT_ALONE).items()
               if c.rpartition(":")[0] not in shared}
    registry = {c: _alone(maven, c) for c in REGISTRY_ALONE}
    unpacked = work / "registry"
    for path in registry.values():
        with tarfile.open(path) as archive:
            archive.extractall(unpacked, filter="data")
    return {name: {"version": version, "tree_sha256": digest(at),
                   "files": {c: _sums(p) for c, p in sorted(files.items())}}
            for name, version, at, files in (("kafka", KAFKA, _gathered(work / "kafka", kafka), kafka),
                                             ("registry", REGISTRY, unpacked, registry),
                                             ("connect", KAFKA, _gathered(work / "connect", connect), connect))}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        resolved = resolve(Path(temporary))
    (Path(__file__).parent / "checksums.json").write_text(json.dumps(resolved, indent=1) + "\n")
    print({name: len(part["files"]) for name, part in resolved.items()})
