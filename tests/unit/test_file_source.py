"""The file source: its positions, how it knows a file again, lines of text, and folders that are watched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.codec import parse
from headrace.connector import Pulled
from headrace.connectors.file import SOURCE, FileSource, FileSourceConfig
from headrace.errors import SchemaError, UserError
from headrace.files.lines import LineReader

pytestmark = pytest.mark.unit

SCHEMA = parse('{"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]}')
Stored = dict[str, Mapping[str, Any]]
"""A file's name → its position."""


def config(**keys: str) -> FileSourceConfig:
    text = keys.get("format") == "text"
    return FileSourceConfig.model_validate({"file": "data/n.csv", "topic": "t", **({} if text else {"schema": "r"}),
                                            **{k.replace("__", "."): v for k, v in keys.items()}})


@contextmanager
def opened(project: Path, stored: Stored | None = None, /, **keys: Any) -> Iterator[FileSource]:
    made = SOURCE(config(**keys), project=project)
    made.schema = SCHEMA
    kept = json.loads(json.dumps(stored or {}))
    made.open(lambda partition: kept.get(partition["filename"]))
    with closing(made):
        yield made


def values(pulled: Pulled) -> list[Any]:
    column = [value for records in pulled.records for value in records.value.values.to_pylist()]
    return [value["n"] if isinstance(value, dict) else value for value in column]


def numbers(made: FileSource, records_max: int = 100) -> list[Any]:
    """What one `pull` gives."""
    pulled = made.pull(records_max)
    return [] if pulled is None else values(pulled)


def drained(made: FileSource, stored: Stored, records_max: int = 100) -> list[Any]:
    """Everything there is now, each pull committed."""
    found = []
    while (pulled := made.pull(records_max)) is not None:
        found += values(pulled)
        stored[pulled.partition["filename"]] = pulled.position
        made.committed(pulled)
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/n.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(10)))
    return tmp_path


@pytest.fixture
def write(project: Path) -> Callable[..., Path]:
    def file(name: str, *ns: object) -> Path:
        path = project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("n\n" + "".join(f"{n}\n" for n in ns))
        return path
    return file


def test_it_goes_on_behind_a_stored_position(project: Path) -> None:
    with opened(project) as first:
        assert numbers(first, 3) == [0, 1, 2]
        pulled = first.pull(4)
    assert pulled is not None
    assert pulled.partition == {"filename": "data/n.csv"}
    with opened(project, {"data/n.csv": pulled.position}) as second:
        assert numbers(second) == [7, 8, 9]
        assert not second.ended
        assert second.pull(100) is None
        assert second.ended


def test_where_a_record_was_and_what_its_bytes_are(project: Path) -> None:
    (project / "data/n.csv").write_text("n\n5\nsix\n7\n")
    with opened(project) as made:
        pulled = made.pull(100)
    assert pulled is not None
    assert (len(pulled), values(pulled)) == (3, [5, 7])
    assert [(pulled.where(i), pulled.raw(i)) for i in (0, 1)] == [("data/n.csv:2", b"5"), ("data/n.csv:4", b"7")]
    assert list(pulled.failures) == [("data/n.csv:3", b"six", ("n: “six” is not an int",))]
    assert pulled.records[0].topic == "t"
    assert pulled.records[0].value.shape is not None
    assert pulled.records[0].value.shape.name == "R"


def test_lines_appended_later_are_read_with_tail(project: Path) -> None:
    with opened(project, tail="true") as made:
        assert len(numbers(made)) == 10
        assert numbers(made) == []
        with (project / "data/n.csv").open("a") as file:
            file.write("10\n1")
        assert numbers(made) == [10]
        assert numbers(made) == []
        assert not made.ended


@pytest.mark.parametrize("text", ["n\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n", "n\n0\n"])
def test_another_file_of_the_same_name_is_refused(project: Path, text: str) -> None:
    with opened(project) as made:
        pulled = made.pull(5)
    assert pulled is not None
    (project / "data/n.csv").write_text(text)
    with pytest.raises(UserError, match="another file"), opened(project, {"data/n.csv": pulled.position}):
        pass


def test_an_absent_file_is_a_user_error(project: Path) -> None:
    with pytest.raises(UserError, match="there is no file"), opened(project, file="data/absent.csv"):
        pass
    with pytest.raises(UserError, match="there is no file"), opened(project, file="absent"):
        pass


def test_a_schema_that_does_not_fit_is_told_at_once(project: Path) -> None:
    (project / "data/n.csv").write_text("m\n1\n")
    with pytest.raises(SchemaError, match="no column “n”"), opened(project):
        pass


@pytest.mark.parametrize(("keys", "message"), [
    ({"file": "n.txt"}, "format: the suffix"), ({"file": "data/*.txt"}, "format: the suffix"),
    ({"file": "n.parquet", "tail": "true"}, "tail: parquet files"), ({"csv__delimiter": '"'}, "cannot be"),
    ({"schema": None}, "schema: is missing")])
def test_keys_that_do_not_go_together(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**keys)


def test_keys_as_text() -> None:
    assert config(csv__delimiter="\\t", csv__null__values="-,NULL").delimiter == "\t"
    assert config(csv__null__values="-,NULL").null_values == ("-", "NULL")


# ---- lines of text


def test_lines_as_kafka_connect_reads_them(project: Path) -> None:
    (project / "data/log").write_bytes("eins\r\n\nzwei\rdrei\nvier und fünf".encode())
    keys = {"file": "data/log", "format": "text"}
    with opened(project, tail="true", **keys) as made:
        pulled = made.pull(3)
        assert pulled is not None
        assert values(pulled) == ["eins", "", "zwei"]
        assert dict(pulled.position) == {"position": 12}
        assert [pulled.where(i) for i in range(3)] == ["data/log:byte 0", "data/log:byte 6", "data/log:byte 7"]
        assert numbers(made) == ["drei"]
        assert numbers(made) == []
    with opened(project, {"data/log": pulled.position}, **keys) as made:
        assert drained(made, {}) == ["drei", "vier und fünf"]


def test_a_line_that_is_no_utf_8_is_a_failure_of_its_own(project: Path) -> None:
    (project / "data/log").write_bytes(b"a\n\xc3\n\xa9b\nc\n")  # the two halves of an é, in two lines
    with opened(project, file="data/log", format="text") as made:
        pulled = made.pull(10)
    assert pulled is not None
    assert values(pulled) == ["a", "c"]
    assert list(pulled.failures) == [("data/log:byte 2", b"\xc3", ("not UTF-8: byte 1",)),
                                     ("data/log:byte 4", b"\xa9b", ("not UTF-8: byte 1",))]
    assert [pulled.raw(i) for i in (0, 1)] == [b"a", b"c"]


def test_a_text_file_may_come_later(project: Path) -> None:
    with opened(project, file="data/late.log", format="text", tail="true") as made:
        assert numbers(made) == []
        (project / "data/late.log").write_text("there\n")
        assert numbers(made) == ["there"]


@given(lines=st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=5),
                                st.sampled_from(["\n", "\r\n", "\r"])), max_size=20),
       records_max=st.integers(1, 7), block=st.integers(1, 9))
def test_cutting_does_not_depend_on_blocks(tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]],
                                           records_max: int, block: int) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    text = "".join(map("".join, lines))
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.files.lines.BLOCK_BYTES", block)
        found, at = [], 0
        while True:  # each piece by a reader of its own, as after a kill
            with closing(LineReader(path, byte=at)) as reader:
                piece = reader.read(records_max)
            if piece is None:
                break
            found += piece.values.to_pylist()
            at = piece.byte
    assert found == text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    assert at == path.stat().st_size


def test_a_line_without_end_is_bad_and_the_next_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.files.lines.BLOCK_BYTES", 10)
    monkeypatch.setattr("headrace.files.lines.RECORD_BYTES_MAX", 50)
    (project / "data/log").write_text("a\n" + "x" * 200 + "\nb\n")
    with opened(project, file="data/log", format="text") as made:
        pulled = [made.pull(10), made.pull(10), made.pull(10)]
    assert [values(p) for p in pulled if p] == [["a"], [], ["b"]]
    assert pulled[1] is not None
    assert "does not end within 50 bytes" in pulled[1].failures[0][2][0]


# ---- folders


def test_files_of_a_folder_in_the_order_of_their_names(project: Path, write: Callable[..., Path]) -> None:
    for name, ns in (("in/b.csv", (3, 4)), ("in/a.csv", (1, 2)), ("in/.hidden.csv", ("x",)), ("in/c.csv.tmp", ("x",)),
                     ("in/notes.txt", ("x",))):
        write(name, *ns)
    pa.parquet.write_table(pa.table({"n": pa.array([5], pa.int32())}), project / "in/c.parquet")
    stored: Stored = {}
    with opened(project, file="in") as made:
        assert drained(made, stored, 1) == [1, 2, 3, 4, 5]
        assert made.ended
    assert sorted(stored) == ["in/a.csv", "in/b.csv", "in/c.parquet"]
    with opened(project, stored, file="in/") as made:
        assert drained(made, stored) == []
    write("in/aa.csv", 6)
    with opened(project, stored, file="in/*.csv") as made:
        assert drained(made, stored) == [6]


def test_a_folder_is_resumed_within_a_file(project: Path, write: Callable[..., Path]) -> None:
    write("in/a.csv", 1, 2, 3)
    write("in/b.csv", 4, 5)
    for stop in range(5):
        stored: Stored = {}
        found: list[Any] = []
        with opened(project, file="in") as made:
            for _ in range(stop):
                pulled = made.pull(1)
                assert pulled is not None
                found += values(pulled)
                stored[pulled.partition["filename"]] = pulled.position
        with opened(project, stored, file="in") as made:
            assert found + drained(made, stored) == [1, 2, 3, 4, 5]


def test_a_watched_folder_takes_new_files_and_appended_lines(project: Path, write: Callable[..., Path]) -> None:
    write("in/b.csv", 1)
    stored: Stored = {}
    with opened(project, file="in", tail="true") as made:
        assert drained(made, stored) == [1]
        write("in/a.csv", 2)
        assert drained(made, stored) == [2]
        with (project / "in/b.csv").open("a") as file:
            file.write("3\n")
        assert drained(made, stored) == [3]
        assert not made.ended
        (project / "in/a.csv").write_text("n\n99\n100\n")
        with pytest.raises(UserError, match="another file"):
            drained(made, stored)


def test_a_finished_file_is_moved_once_it_is_committed(project: Path, write: Callable[..., Path]) -> None:
    keys = {"file": "in", "tail": "true", "done.folder": "in/done"}
    first = write("in/a.csv", 1, 2)
    stored: Stored = {}
    with opened(project, stored, **keys) as made:
        records, done = made.pull(10), made.pull(10)
        assert records is not None
        assert done is not None
        assert (values(records), len(done)) == ([1, 2], 0)
        made.committed(records)
        assert first.exists()
        made.committed(done)
        assert not first.exists()
        stored |= {"in/a.csv": done.position}
        write("in/a.csv", 1, 2, 3)  # the next day's, by the same name and with the same beginning
        assert drained(made, stored) == [1, 2, 3]
    assert {p.name: p.read_text() for p in (project / "in/done").iterdir()} == {
        "a.csv": "n\n1\n2\n", "a.1.csv": "n\n1\n2\n3\n"}


def test_a_kill_between_commit_and_move_reads_nothing_twice(project: Path, write: Callable[..., Path]) -> None:
    keys = {"file": "in", "done.folder": "done"}
    path = write("in/a.csv", 1)
    with opened(project, **keys) as made:
        assert numbers(made) == [1]
        done = made.pull(10)
        assert done is not None
    stored: Stored = {"in/a.csv": done.position}
    with opened(project, stored, **keys) as made:
        assert drained(made, stored) == []
    assert not path.exists()
    assert (project / "done/a.csv").exists()


def test_a_file_that_is_taken_away_is_none(project: Path, write: Callable[..., Path]) -> None:
    write("in/a.csv", 1)
    second = write("in/b.csv", 2)
    write("in/c.csv", 3)
    with opened(project, file="in") as made:
        second.unlink()
        assert drained(made, {}) == [1, 3]


def test_a_folder_that_goes_is_a_user_error(project: Path, write: Callable[..., Path]) -> None:
    write("in/a.csv", 1).unlink()
    with opened(project, file="in", tail="true") as made:
        (project / "in").rmdir()
        with pytest.raises(UserError, match="No such file"):
            made.pull(10)


def test_a_watched_file_is_never_done(project: Path) -> None:
    with pytest.raises(UserError, match=r"done\.folder: a file that is watched"), opened(
            project, tail="true", done__folder="done"):
        pass


def test_many_lines_come_fast_enough_to_be_vectorised(project: Path) -> None:
    """No assertion on time: a loop over records would make this the slowest unit test by far."""
    count = 300_000
    (project / "data/log").write_text("\n".join(map(str, range(count))) + "\n")
    stored: Stored = {}
    with opened(project, file="data/log", format="text") as made:
        found = []
        while (pulled := made.pull(20_000)) is not None:
            found.append(pulled.records[0].value.values)
    assert (pa.concat_arrays(found).cast(pa.int64()).to_numpy() == np.arange(count)).all()
    assert stored == {}
