"""What the stack downloads: from a Maven mirror that this file serves, so that it can serve wrong bytes too."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.errors import StackError
from headrace.stack import jars
from headrace.stack.jars import Bundle, File, digest, fetch

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

SMALL, LARGE = b"a small jar", b"a large jar" * 100_000


class Mirror:
    """A Maven repository on this machine; `asked` has the paths of what was downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        mirror = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self.path.endswith(".sha1"):  # jgo asks for these to compare; we have better ones
                    mirror.asked.append(self.path)
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def put(self, coordinate: str, content: bytes) -> File:
        file = File(coordinate, hashlib.sha256(content).hexdigest(), len(content))
        group, artifact, version, _, _ = file.parts
        at = self.folder / group.replace(".", "/") / artifact / version / file.name
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(content)
        return file


@pytest.fixture(autouse=True)
def _sockets_end_here() -> Iterator[None]:
    """jgo leaves the socket of a refused or broken download to the collector, which warns of it: let it do so here,
    where that is expected, and not in whichever test runs next."""
    yield
    gc.collect()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    made = Mirror(tmp_path / "mirror")
    serving = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    monkeypatch.setenv("HEADRACE_MAVEN_URL", made.url)
    yield made
    made.server.shutdown()
    made.server.server_close()
    serving.join()


def tree(tmp_path: Path, contents: dict[str, bytes]) -> str:
    folder = tmp_path / "expected"
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return digest(folder)


@pytest.fixture
def bundles(mirror: Mirror, tmp_path: Path) -> dict[str, Bundle]:
    files = mirror.put("org.some:small:1.0", SMALL), mirror.put("org.some.more:large:2.0", LARGE)
    made = tree(tmp_path, {"small-1.0.jar": SMALL, "large-2.0.jar": LARGE})
    return {"kafka": Bundle("kafka", "1", made, files)}


def test_pinned_has_every_jar_and_the_registry() -> None:
    pinned = jars.pinned()
    names = {name: [file.name for file in bundle.files] for name, bundle in pinned.items()}
    assert names["registry"] == ["apicurio-registry-app-3.3.3-all.tar.gz"]
    assert {"kafka_2.13-4.3.1.jar", "kafka-clients-4.3.1.jar", "kafka-tools-4.3.1.jar"} <= set(names["kafka"])
    assert len(names["kafka"]) == len(set(names["kafka"])) == 47  # 46 to run, and the tools
    assert all(len(f.sha256) == 64 and f.bytes > 0 for bundle in pinned.values() for f in bundle.files)


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jars.cache_folder() == tmp_path / "headrace"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert jars.cache_folder() == tmp_path / ".cache" / "headrace"


def test_downloads_once_and_tells_how_far_it_is(mirror: Mirror, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    cache = tmp_path / "cache"
    folders = fetch(bundles, progress=lambda done, total: told.append((done, total)), cache=cache)
    assert folders == {"kafka": cache / "kafka-1"}
    assert (folders["kafka"] / "small-1.0.jar").read_bytes() == SMALL
    assert told == sorted(told)
    assert told[-1] == (len(SMALL) + len(LARGE),) * 2
    assert len(told) > 10
    assert len(mirror.asked) == 2
    assert {path.name for path in cache.iterdir()} == {"lock", "kafka-1"}
    fetch(bundles, cache=cache)
    assert len(mirror.asked) == 2


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "added"])
def test_a_damaged_cache_is_fetched_again(mirror: Mirror, bundles: dict[str, Bundle], tmp_path: Path,
                                          harm: str) -> None:
    folder = fetch(bundles, cache=tmp_path / "cache")["kafka"]
    jar = folder / "large-2.0.jar"
    match harm:
        case "changed":
            jar.write_bytes(LARGE[:-1] + b"!")
        case "cut":
            jar.write_bytes(LARGE[:1000])
        case "gone":
            jar.unlink()
        case "added":
            (folder / "another.jar").write_bytes(b"Java would load it")
    fetch(bundles, cache=tmp_path / "cache")
    assert digest(folder) == bundles["kafka"].tree_sha256
    assert len(mirror.asked) == 4


def test_what_is_not_as_pinned_is_refused(mirror: Mirror, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    mirror.put("org.some:small:1.0", b"a wicked jar")
    with pytest.raises(StackError) as refused:
        fetch(bundles, cache=tmp_path / "cache")
    message = str(refused.value)
    assert "small-1.0.jar is not what was pinned" in message
    assert hashlib.sha256(b"a wicked jar").hexdigest() in message
    assert hashlib.sha256(SMALL).hexdigest() in message
    assert not (tmp_path / "cache" / "kafka-1").exists()
    assert not list((tmp_path / "cache").rglob("small-1.0.jar"))
    mirror.put("org.some:small:1.0", SMALL)
    fetch(bundles, cache=tmp_path / "cache")


def test_a_file_cut_off_by_an_interrupted_run_is_mended(mirror: Mirror, bundles: dict[str, Bundle],
                                                        tmp_path: Path) -> None:
    left = tmp_path / "cache/downloads/org/some/more/large/2.0/large-2.0.jar"
    left.parent.mkdir(parents=True)
    left.write_bytes(LARGE[:5000])
    whole = tmp_path / "cache/downloads/org/some/small/1.0/small-1.0.jar"
    whole.parent.mkdir(parents=True)
    whole.write_bytes(SMALL)
    told: list[tuple[int, int]] = []
    fetch(bundles, cache=tmp_path / "cache", progress=lambda done, total: told.append((done, total)))
    assert [path.rpartition("/")[2] for path in mirror.asked] == ["large-2.0.jar"]
    assert told[-1][0] == told[-1][1]


def test_a_missing_file_says_what_to_do(mirror: Mirror, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    (mirror.folder / "org/some/small/1.0/small-1.0.jar").unlink()
    with pytest.raises(StackError, match=r"small-1\.0\.jar could not be downloaded(.|\n)*HEADRACE_MAVEN_URL"):
        fetch(bundles, cache=tmp_path / "cache")


def test_up_without_a_network_says_what_to_do(tmp_path: Path) -> None:
    nowhere = {"HEADRACE_MAVEN_URL": "http://127.0.0.1:9", "XDG_CACHE_HOME": str(tmp_path / "cache")}  # discard port
    done = subprocess.run([sys.executable, "-m", "headrace", "up"], cwd=tmp_path, env={**os.environ, **nowhere},
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == StackError.exit_code
    assert "could not be downloaded" in done.stderr
    assert "HTTPS_PROXY" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_at_once_download_once(mirror: Mirror, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(bundles, cache=tmp_path / "cache"), range(4)))
    assert found == [{"kafka": tmp_path / "cache/kafka-1"}] * 4
    assert len(mirror.asked) == 2


def test_an_archive_is_unpacked_and_held_to_its_digest(mirror: Mirror, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("run.jar", SMALL), ("lib/main/large.jar", LARGE)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    file = mirror.put("org.some:app:3.0:all:tar.gz", packed.getvalue())
    assert file.name == "app-3.0-all.tar.gz"
    made = tree(tmp_path, {"run.jar": SMALL, "lib/main/large.jar": LARGE})
    folder = fetch({"registry": Bundle("registry", "3", made, (file,))}, cache=tmp_path / "cache")["registry"]
    assert (folder / "lib/main/large.jar").read_bytes() == LARGE
    with pytest.raises(StackError, match="the other folder came out as"):
        fetch({"other": Bundle("other", "3", "0" * 64, (file,))}, cache=tmp_path / "cache")


def test_an_interrupt_leaves_nothing_half_published(mirror: Mirror, bundles: dict[str, Bundle],
                                                    tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(bundles, cache=tmp_path / "cache", progress=interrupt)
    assert not (tmp_path / "cache/kafka-1").exists()
    assert fetch(bundles, cache=tmp_path / "cache")["kafka"].is_dir()
