"""What flows held back: look at it, mend it, and send it to its source topic again, once.

    read.py      records of a quarantine topic, and their summary
    mend.py      which of them, and with what changes: pure
    markers.py   which were sent already
    replay.py    the transaction that sends and marks
"""

from __future__ import annotations

from headrace.quarantine.markers import REPLAYED, Markers
from headrace.quarantine.mend import Mend
from headrace.quarantine.read import Held, Summary, held, summary, topics
from headrace.quarantine.replay import Replayed, replay

__all__ = ["REPLAYED", "Held", "Markers", "Mend", "Replayed", "Summary", "held", "replay", "summary", "topics"]
