"""What a batch became, and how it is let go."""

from __future__ import annotations

from weakref import finalize

import pytest

from headrace.batch import Frames, Outgoing
from headrace.pipeline import Outputs

pytestmark = pytest.mark.unit


class Picked(list[bytes | None]):
    """A list that can be watched."""


def test_what_was_picked_is_let_go_before_what_it_was_picked_from() -> None:
    gone: list[str] = []
    frames, picked = Frames(()), Picked([b"x"])
    outputs = Outputs(1, sinks={"valid": Outgoing("valid", picked, [None], [0], [[]])}, frames=[frames])
    finalize(picked, gone.append, "picked")
    finalize(frames, gone.append, "frames")
    del picked, frames
    assert not gone
    outputs.release()
    assert gone == ["picked", "frames"]
