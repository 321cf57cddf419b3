"""A stack that the rows of the suite may break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.world import World, own_stack


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with own_stack(tmp_path_factory.mktemp("faults")) as own:
        yield own
