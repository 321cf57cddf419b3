"""Where the committed part of keyed state lies: sorted bytes by key, in RocksDB or in memory."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from headrace.errors import EnvironmentFault

DATA, META = b"d", b"m"
STALE_S = 12 * 3600
"""A copy on disk older than this is not trusted: the changelog may have forgotten what was deleted since (Kafka keeps
tombstones for 24 hours)."""
CACHE_BYTES = 16 << 20
WRITE_BUFFER_BYTES = 8 << 20


class Bottom(Protocol):
    """Committed entries of one partition. Keys and values are any bytes."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end (None: to the last one), in the order of their keys."""
        ...

    def apply(self, changes: Mapping[bytes, bytes | None], next_offset: int | None) -> None:
        """All of the changes or none; None deletes. `next_offset` is the changelog's, up to which this copy stands."""
        ...

    def next_offset(self) -> int:
        """Where in the changelog this copy goes on."""
        ...

    def clear(self) -> None:
        """Forget everything: what it holds belongs to another changelog."""
        ...

    def size_bytes(self) -> int: ...

    def close(self) -> None: ...


class Memory:
    """For tests, and for flows run without a broker."""

    def __init__(self) -> None:
        self._held: dict[bytes, bytes] = {}
        self._next = 0

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return list(map(self._held.get, keys))

    def scan(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(k for k in self._held if start <= k and (end is None or k < end)):
            yield key, self._held[key]

    def apply(self, changes: Mapping[bytes, bytes | None], next_offset: int | None) -> None:
        for key, value in changes.items():
            if value is None:
                self._held.pop(key, None)
            else:
                self._held[key] = value
        self._next = self._next if next_offset is None else next_offset

    def next_offset(self) -> int:
        return self._next

    def clear(self) -> None:
        self._held, self._next = {}, 0

    def size_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self._held.items())

    def close(self) -> None:
        pass


class Rocks:
    """A RocksDB folder of this worker's own. A copy that cannot be opened or is too old is thrown away: the changelog
    is the truth, and this only saves reading all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with self._told():
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What RocksDB says, which is a bare Exception, as the fault of the disk that it mostly is."""
        try:
            yield
        except EnvironmentFault:
            raise
        except Exception as error:
            raise EnvironmentFault(f"the state in {self.folder} cannot be read or written: {error}", hint="is the disk "
                                   "full? Nothing is lost: the changelog has all that is committed") from error

    def _open(self) -> Any:
        from rocksdict import Rdict

        try:
            db = Rdict(str(self.folder), options())
        except Exception:  # rocksdict raises bare Exceptions: a torn or foreign folder
            shutil.rmtree(self.folder, ignore_errors=True)
            return Rdict(str(self.folder), options())
        noted = db.get(META)
        if noted is not None and time.time() - json.loads(noted)["at"] > STALE_S:
            db.close()
            shutil.rmtree(self.folder)
            return Rdict(str(self.folder), options())
        return db

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._told():
            found: list[bytes | None] = self._db.get([DATA + key for key in keys])
        return found

    def scan(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        stop = None if end is None else DATA + end
        with self._told():
            for key, value in self._db.items(from_key=DATA + start):
                if key[:1] != DATA or (stop is not None and key >= stop):
                    return
                yield key[1:], value

    def apply(self, changes: Mapping[bytes, bytes | None], next_offset: int | None) -> None:
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes.items():  # a method call each is the quickest there is
            if value is None:
                delete(DATA + key)
            else:
                put(DATA + key, value)
        if next_offset is not None:
            batch.put(META, json.dumps({"next": next_offset, "at": time.time()}).encode())
        with self._told():
            self._db.write(batch)

    def next_offset(self) -> int:
        noted = self._db.get(META)
        return int(json.loads(noted)["next"]) if noted is not None else 0

    def clear(self) -> None:
        with self._told():
            self._db.close()
            shutil.rmtree(self.folder)
            self._db = self._open()

    def size_bytes(self) -> int:
        """As RocksDB estimates it."""
        return sum(self._db.property_int_value(f"rocksdb.{name}") or 0
                   for name in ("estimate-live-data-size", "cur-size-all-mem-tables"))

    def close(self) -> None:
        self._db.close()


def options() -> Any:
    """Small buffers: a worker may hold many partitions. The write-ahead log stays on, so that a kill loses little."""
    from rocksdict import BlockBasedOptions, Cache, Options

    made = Options(raw_mode=True)
    made.create_if_missing(True)
    made.set_write_buffer_size(WRITE_BUFFER_BYTES)
    made.set_max_write_buffer_number(2)
    made.set_keep_log_file_num(1)
    made.set_max_open_files(64)
    made.increase_parallelism(1)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES))
    table.set_bloom_filter(10, False)
    made.set_block_based_table_factory(table)
    return made


def sizes(bottom: Bottom, names: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
    """Entries and bytes of each step by the prefix of its keys: counted, for people who ask."""
    out = {}
    for name in names:
        entries = [(len(key), len(value)) for key, value in bottom.scan(name, successor(name))]
        out[name] = len(entries), sum(map(sum, entries))
    return out


def successor(prefix: bytes) -> bytes | None:
    """The first key after all that begin with `prefix`; None when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None
