"""The file source: its positions, and how it knows a file again."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headrace.codec import parse
from headrace.connectors.file import FileSource, FileSourceConfig
from headrace.errors import UserError

pytestmark = pytest.mark.unit

SCHEMA = parse('{"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]}')


def config(**keys: str) -> FileSourceConfig:
    return FileSourceConfig.model_validate({"connector.class": "file", "file": "data/n.csv", "topic": "t",
                                            "schema": "r", **{k.replace("__", "."): v for k, v in keys.items()}})


def source(project: Path, position: dict[str, int] | None = None, **keys: str) -> FileSource:
    made = FileSource(config(**keys), project=project)
    made.open(SCHEMA, position)
    return made


def numbers(made: FileSource, records_max: int) -> tuple[list[int], dict[str, int] | None]:
    piece = made.read(records_max)
    return ([], None) if piece is None else (piece.rows.column("n").to_pylist(), made.position(piece))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/n.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(10)))
    return tmp_path


def test_it_goes_on_behind_a_stored_position(project: Path) -> None:
    with closing(source(project)) as first:
        assert numbers(first, 3)[0] == [0, 1, 2]
        _, position = numbers(first, 4)
    with closing(source(project, json.loads(json.dumps(position)))) as second:
        assert numbers(second, 100)[0] == [7, 8, 9]
        assert numbers(second, 100) == ([], None)


def test_lines_appended_later_are_read_with_tail(project: Path) -> None:
    with closing(source(project, tail="true")) as made:
        assert len(numbers(made, 100)[0]) == 10
        assert numbers(made, 100) == ([], None)
        with (project / "data/n.csv").open("a") as file:
            file.write("10\n1")
        assert numbers(made, 100)[0] == [10]
        assert numbers(made, 100) == ([], None)


@pytest.mark.parametrize("text", ["n\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n", "n\n0\n"])
def test_another_file_of_the_same_name_is_refused(project: Path, text: str) -> None:
    with closing(source(project)) as made:
        _, position = numbers(made, 5)
    (project / "data/n.csv").write_text(text)
    with pytest.raises(UserError, match="another file"):
        source(project, position)


def test_it_is_the_files_name_that_positions_are_of(project: Path) -> None:
    assert FileSource(config(), project=project).partition == {"filename": "data/n.csv"}


def test_an_absent_file_is_a_user_error(project: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        source(project, file="data/absent.csv")


@pytest.mark.parametrize(("keys", "message"), [
    ({"file": "n.txt"}, "format: the suffix"), ({"file": "n.parquet", "tail": "true"}, "tail: parquet files"),
    ({"errors__deadletterqueue__topic__name": "dead"}, "nothing goes there"), ({"csv__delimiter": '"'}, "cannot be")])
def test_keys_that_do_not_go_together(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**keys)


def test_what_a_new_topic_is_created_with() -> None:
    assert config().topic_config() == {}
    assert config(timestamp__column="at").topic_config() == {"retention.ms": "-1"}
    assert config(topic__creation__default__retention__ms="5", timestamp__column="at").topic_config() == {
        "retention.ms": "5"}
    assert config(csv__delimiter="\\t", csv__null__values="-,NULL").delimiter == "\t"
    assert config(csv__null__values="-,NULL").null_values == ("-", "NULL")
