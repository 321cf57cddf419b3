"""docs/connectors.md has a table of every connector's keys, with the descriptions and defaults of their code.

    python -m tests.unit.test_docs_connectors        writes the tables anew
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from headrace import catalog, reference
from headrace.connect.spec import runnable

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "docs" / "connectors.md", ROOT / "docs" / "connect.md")
PLACE = re.compile(r"^<!-- keys: (?P<what>[\w ]+) -->\n(?P<table>(?:\|.*\n)*)", re.MULTILINE)
UNSAID = ("name", "connector.class")
"""Of the common keys: told beside."""


def configs() -> dict[str, type[BaseModel]]:
    """“file source” → its keys; and those that all sources, or all sinks, or all share."""
    from headrace.connect.spec_keys import Common, SinkKeys, SourceKeys

    found: dict[str, type[BaseModel]] = {"all": Common, "sources": SourceKeys, "sinks": SinkKeys}
    for name in runnable(ROOT):
        module = catalog.connector(name, ROOT)
        for kind in ("source", "sink"):
            if (cls := getattr(module, kind.upper(), None)) is not None:
                found[f"{name} {kind}"] = cls.Config
    return found


def shown(default: Any) -> str:
    """A default as it is written in a file."""
    match default:
        case None | () | "":
            return ""
        case SecretStr():
            return shown(default.get_secret_value())
        case bool():
            return f"`{str(default).lower()}`"
        case tuple():
            return f"`{','.join(default)}`"
        case datetime():
            return f"`{default.isoformat()}`"
    return f"`{default}`"


def rows(what: str) -> Iterator[str]:
    """A table, line by line."""
    shared = {each["name"] for each in reference.fields(configs()["all"])}
    yield "| key | default | meaning |\n"
    yield "|---|---|---|\n"
    for each in reference.fields(configs()[what]):
        if each["name"] in UNSAID or (what in ("sources", "sinks") and each["name"] in shared):
            continue
        default = "**needed**" if each["required"] else shown(each["default"])
        yield f"| `{each['name']}` | {default} | {each['description'].replace('|', chr(92) + '|')} |\n"


def written(page: str) -> str:
    """The page with its tables as they ought to be."""
    return PLACE.sub(lambda found: f"<!-- keys: {found['what']} -->\n{''.join(rows(found['what']))}", page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text()
    assert text == written(text), "run: python -m tests.unit.test_docs_connectors"


def test_every_connector_has_a_table() -> None:
    places = [found["what"] for page in PAGES for found in PLACE.finditer(page.read_text())]
    assert sorted(places) == sorted(configs())


if __name__ == "__main__":
    for each_page in PAGES:
        each_page.write_text(written(each_page.read_text()))
