"""No label is used before its time: the check every training and every judgement passes its rows through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import UserError

SHOWN_MAX = 5


class LeakError(UserError):
    """Labels were not known when they were to be used. `rows` are their places among the rows given."""

    def __init__(self, what: str, rows: np.ndarray[Any, np.dtype[np.int64]], *, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.rows = rows


def times_ms(rows: pa.Table, column: str) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Any]:
    """(milliseconds since 1970, has one) of a timestamp or long column. Raises UserError if it is not there."""
    if column not in rows.schema.names:
        raise UserError(f"the rows have no column “{column}” for times",
                        hint=f"they have {', '.join(rows.schema.names)}")
    held = rows.column(column)
    if not pa.types.is_integer(held.type):
        held = pc.cast(pc.cast(held, pa.timestamp("ms", tz=getattr(held.type, "tz", None)), safe=False), pa.int64())
    return (pc.cast(held.fill_null(0), pa.int64()).to_numpy(), held.is_valid().to_numpy())


def check_known(rows: pa.Table, known_at: str, as_of_ms: int, labelled: Any = None) -> None:
    """Raises LeakError unless every label was known by `as_of_ms`. `labelled` marks the rows that have one (all).

    A label without a time is a leak too: nobody can tell since when it was known.
    """
    times, timed = times_ms(rows, known_at)
    has = np.ones(len(times), dtype=bool) if labelled is None else np.asarray(labelled, dtype=bool)
    early = np.flatnonzero(has & (~timed | (times > as_of_ms)))
    if not len(early):
        return
    shown = ", ".join(_name(rows, int(at), int(times[at]) if timed[at] else None) for at in early[:SHOWN_MAX])
    more = f" and {len(early) - SHOWN_MAX} more" if len(early) > SHOWN_MAX else ""
    raise LeakError(f"{len(early)} labels of {int(has.sum())} were not known as of {as_of_ms}: {shown}{more}", early,
                    hint=f"train and judge only on rows whose “{known_at}” is no later than that")


def _name(rows: pa.Table, at: int, known: int | None) -> str:
    """A row by its place in Kafka, where it says so, and when its label came."""
    names = ("__topic", "__partition", "__offset")
    place = [rows.column(name)[at].as_py() for name in names if name in rows.schema.names]
    where = f"{place[0]}/{place[1]}@{place[2]}" if len(place) == len(names) else f"row {at}"
    return f"{where} (known {'at no time' if known is None else f'at {known}'})"
