"""A record that no broker takes is an error that names its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.batch import Outgoing
from headrace.connect.pace import Pace
from headrace.errors import BrokerError
from headrace.keyboard import produce
from headrace.keyboard.produce import Delivery
from headrace.settings import Settings

pytestmark = pytest.mark.unit


def test_an_undelivered_record_is_named_by_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "DELIVERY_S", 1.0)
    delivery = Delivery(Settings(tmp_path, "127.0.0.1:1", None), 1_000_000)
    delivery.send(Outgoing("t", [b"a", b"b"], [None] * 2, [0] * 2, [[]] * 2), np.array([7, 9]))
    with pytest.raises(BrokerError, match=r"line 7 was not delivered \(and 1 more\)"):
        delivery.flush()


def test_a_pace_is_smooth_and_does_not_burst() -> None:
    assert Pace(None, 500).records_max == 500
    assert Pace(1000, 500).records_max == 50
    assert Pace(3, 500).records_max == 1
