"""What a stack's data was made with is remembered, and another wish is refused with what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.errors import UserError
from headrace.stack import kafka
from headrace.stack.cluster import Cluster, keep, kept, new_id, settled

pytestmark = pytest.mark.unit


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    made = [new_id() for _ in range(2000)]  # one in 64 random ones begins with a dash
    assert {len(one) for one in made} == {22}
    assert not any(one.startswith("-") for one in made)


def test_the_first_wish_counts_and_is_kept(tmp_path: Path) -> None:
    assert kept(tmp_path) is None
    assert settled(tmp_path, None, False).brokers == 1
    made = settled(tmp_path, 3, False)
    keep(tmp_path, made)
    assert settled(tmp_path, None, False) == settled(tmp_path, 3, False) == made
    with pytest.raises(UserError, match="is that of 3 brokers, not of 1 broker") as refused:
        settled(tmp_path, 1, False)
    assert "headrace down --purge" in str(refused.value)


def test_data_of_before_brokers_were_counted_is_of_one(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    assert settled(tmp_path, None, False).brokers == 1
    with pytest.raises(UserError, match="1 broker, not of 3"):
        settled(tmp_path, 3, False)


def test_users_are_settled_by_the_first_wish_too(tmp_path: Path) -> None:
    made = settled(tmp_path, None, True)
    assert made.secure
    keep(tmp_path, made)
    assert settled(tmp_path, None, False) == made
    keep(tmp_path, Cluster())
    with pytest.raises(UserError, match="a stack without users"):
        settled(tmp_path, None, True)


@pytest.mark.parametrize("brokers", [0, -1, 2, 4, 7])
def test_an_even_number_is_refused(tmp_path: Path, brokers: int) -> None:
    with pytest.raises(UserError, match=re.escape("none of 1, 3, 5")):
        settled(tmp_path, brokers, False)


@pytest.mark.parametrize("brokers", [1, 3, 5])
def test_nodes_have_names_and_ports_of_their_own_and_know_all_controllers(brokers: int) -> None:
    made = kafka.nodes(Cluster(brokers))
    ports = {name: port for part in made for name, port in part.ports.items()}
    assert len(ports) == len(set(ports.values())) == 2 * brokers
    assert [part.name for part in made] == (["kafka"] if brokers == 1 else [f"kafka-{n + 1}" for n in range(brokers)])
    assert {part.knows for part in made} == {frozenset(name for name in ports if name.startswith("controller"))}
    assert kafka.all_brokers({**ports, "registry": 1}).split(",") == [part.address(ports) for part in made]
