"""Kafka's jars and the registry's archive: downloaded by jgo, held to pinned SHA-256 sums, cached for every project.

`checksums.json` is the whole truth about what is downloaded, so nothing is resolved on the user's machine and any
Maven mirror is as good as another. The cache is checked against it each time: what does not fit is fetched again.

    ~/.cache/headrace/kafka-4.3.1/*.jar           (XDG_CACHE_HOME is honoured)
    ~/.cache/headrace/registry-3.3.3/quarkus-run.jar, app/, lib/, quarkus/
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.errors import MissingExtra, StackError

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total) while downloading; from several threads, one at a time."""

FETCH_ATTEMPTS = 2
"""A second try mends a file cut off half-way; a third would only repeat what a mirror has wrong."""
DOWNLOADS_AT_ONCE = 6
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """One artifact on Maven Central: `group:artifact:version[:classifier:packaging]`, and what it must be."""

    coordinate: str
    sha256: str
    bytes: int

    @property
    def name(self) -> str:
        _, artifact, version, classifier, packaging = self.parts
        return f"{artifact}-{version}{'-' if classifier else ''}{classifier}.{packaging}"

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        group, artifact, version, *rest = self.coordinate.split(":")
        classifier, packaging = rest or ("", "jar")
        return group, artifact, version, classifier, packaging


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one part runs from: its files, and the SHA-256 over the folder they make (see `digest`)."""

    name: str
    version: str
    tree_sha256: str
    files: tuple[File, ...]

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"


def pinned() -> dict[str, Bundle]:
    """Bundles by name, as pinned in checksums.json."""
    written: dict[str, Any] = json.loads((Path(__file__).parent / "checksums.json").read_text())
    return {name: Bundle(name, part["version"], part["tree_sha256"],
                         tuple(File(at, sum_["sha256"], sum_["bytes"]) for at, sum_ in part["files"].items()))
            for name, part in written.items()}


def cache_folder() -> Path:
    """Where every project of this user keeps jars: $XDG_CACHE_HOME/headrace, else ~/.cache/headrace."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headrace"


def file_sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digest(folder: Path) -> str:
    """SHA-256 over the sorted names and contents of a folder's files: equal folders, equal digests."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return whole.hexdigest()


def fetch(bundles: Mapping[str, Bundle] | None = None, *, progress: Progress | None = None,
          cache: Path | None = None) -> dict[str, Path]:
    """Folders by bundle name, ready to run from; downloads what is missing or damaged.

    Two processes never download at once: the second waits, then finds everything there. A folder appears whole or not
    at all. Raises StackError when a download fails or is not what was pinned, MissingExtra without jgo.
    """
    bundles = pinned() if bundles is None else bundles
    cache = cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        missing = [b for b in bundles.values() if not _is_whole(cache / b.folder, b)]
        if missing:
            downloads = cache / "downloads"
            got = _download([f for b in missing for f in b.files], downloads, progress)
            for bundle in missing:
                _publish(bundle, got, cache)
            shutil.rmtree(downloads)
    return {name: cache / b.folder for name, b in bundles.items()}


def _is_whole(folder: Path, bundle: Bundle) -> bool:
    return folder.is_dir() and digest(folder) == bundle.tree_sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)  # let go by the system when the process ends, however it ends
        yield


def _download(files: list[File], into: Path, progress: Progress | None) -> dict[File, Path]:
    """Every file by jgo, several at a time; files left whole by an interrupted run are kept."""
    try:
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise MissingExtra("stack", "downloading Kafka and the registry") from error
    count = _Count(sum(f.bytes for f in files), progress)
    mirror = os.environ.get("HEADRACE_MAVEN_URL")
    maven = MavenContext(PythonResolver(progress_callback=count.of_file), repo_cache=into, local_repos=[],
                         remote_repos={"mirror": mirror} if mirror else None, timeout=30)
    got: dict[File, Path] = {}
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        waiting = {pool.submit(_download_one, maven, f, count): f for f in files}
        try:
            for done in as_completed(waiting):
                got[waiting[done]] = done.result()
        except BaseException:
            count.stopped = True
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return got


def _download_one(maven: Any, file: File, count: _Count) -> Path:
    group, artifact, version, classifier, packaging = file.parts
    wanted = maven.project(group, artifact).at_version(version).artifact(classifier, packaging)
    found = ""
    for attempt in range(FETCH_ATTEMPTS):
        kept = wanted.cached_path.exists()
        try:
            path = Path(wanted.resolve())
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; jgo's “not found” is a RuntimeError
            wanted.cached_path.unlink(missing_ok=True)
            if attempt + 1 < FETCH_ATTEMPTS and not count.stopped:
                continue
            raise StackError(f"{file.name} could not be downloaded: {error}",
                             hint="check the network (HTTPS_PROXY is honoured), or set HEADRACE_MAVEN_URL to a mirror; "
                                  "to do without, set HEADRACE_BOOTSTRAP and HEADRACE_REGISTRY") from error
        if kept:
            count.add(file.bytes)
        found = file_sha256(path)
        if found == file.sha256:
            return path
        path.unlink()
        count.add(-file.bytes)
    raise StackError(f"{file.name} is not what was pinned: SHA-256 {found}, expected {file.sha256}",
                     hint="a proxy or mirror on the way changed it; nothing was installed from it")


class _Count:
    """Bytes over all files, told to the caller as they come."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress = total, progress
        self.done, self.stopped = 0, False
        self.one_at_a_time = threading.Lock()

    def add(self, n: int) -> None:
        if self.stopped:  # Ctrl-C: end the other downloads too, at their next chunk
            raise OSError("stopped")
        with self.one_at_a_time:
            self.done += n
            if self.progress:
                self.progress(min(max(self.done, 0), self.total), self.total)

    @contextmanager
    def of_file(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        yield self.add


def _publish(bundle: Bundle, got: Mapping[File, Path], cache: Path) -> None:
    """Build the folder beside its place, check it whole, then put it there in one step."""
    building, final = cache / f"{bundle.folder}.new", cache / bundle.folder
    for old in (building, final):
        shutil.rmtree(old, ignore_errors=True)
    building.mkdir()
    for file in bundle.files:
        if file.name.endswith(".tar.gz"):
            with tarfile.open(got[file]) as archive:
                archive.extractall(building, filter="data")
        else:
            got[file].rename(building / file.name)
    made = digest(building)
    if made != bundle.tree_sha256:
        raise StackError(f"the {bundle.name} folder came out as {made}, expected {bundle.tree_sha256}",
                         hint=f"is the disk of {cache} full, or being written by something else?")
    building.rename(final)
