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
REGISTRY_ALONE = (f"io.apicurio:apicurio-registry-app:{REGISTRY}:all:tar.gz",)


def _sums(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _alone(maven: Any, coordinate: str) -> Path:
    group, artifact, version, *rest = coordinate.split(":")
    return Path(maven.project(group, artifact).at_version(version).artifact(*(rest or ("", "jar"))).resolve())


def resolve(work: Path) -> dict[str, Any]:
    """What checksums.json should say, resolved and downloaded afresh under `work`."""
    import jgo
    from jgo.maven import MavenContext

    maven = MavenContext(repo_cache=work / "repository", local_repos=[])
    tree = {c: _alone(maven, c) for c in (f"{a.groupId}:{a.artifactId}:{a.version}"
                                          for a in jgo.resolve("+".join(KAFKA_TREE)) if a.packaging == "jar")}
    kafka = tree | {c: _alone(maven, c) for c in KAFKA_ALONE}
    folder = work / "kafka"
    folder.mkdir(parents=True)
    for path in kafka.values():
        (folder / path.name).write_bytes(path.read_bytes())
    registry = {c: _alone(maven, c) for c in REGISTRY_ALONE}
    unpacked = work / "registry"
    for path in registry.values():
        with tarfile.open(path) as archive:
            archive.extractall(unpacked, filter="data")
    return {name: {"version": version, "tree_sha256": digest(at),
                   "files": {c: _sums(p) for c, p in sorted(files.items())}}
            for name, version, at, files in (("kafka", KAFKA, folder, kafka),
                                             ("registry", REGISTRY, unpacked, registry))}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        resolved = resolve(Path(temporary))
    (Path(__file__).parent / "checksums.json").write_text(json.dumps(resolved, indent=1) + "\n")
    print({name: len(part["files"]) for name, part in resolved.items()})
