"""The quick test whether a text is a time of a form, beside `datetime.strptime`."""

from __future__ import annotations

import datetime as dt
import random

import pytest

from headrace.contracts import times

pytestmark = pytest.mark.contract

FORMS = ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d", "%Y%m%d", "%Y%m%d%H%M%S", "%Y %m %d %H:%M", "%Y/%m/%d %H",
         "%d.%m.%Y", "%Y-%m", "%y-%m-%d", "%H:%M", "%Y-%j", "%Y-%m-%d %I:%M %p", "100%%%Y-%m-%d", "(%Y).%m+%d"]
PIECES = ["0", "1", "9", "00", "02", "12", "13", "24", "29", "30", "31", "32", "59", "60", "61", "62", "0000", "1900",
          "2024", "9999", "-", ":", "/", ".", " ", "  ", "T", "Z", "t", "z", "\n", "٣", "", "(", ")", "+", "100%"]


def truth(value: str, form: str) -> bool:
    try:
        dt.datetime.strptime(value, form)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("form", FORMS)
def test_as_python_reads_it(form: str) -> None:
    """Times of the form, and what comes of changing some of their letters."""
    pick, test = random.Random(form), times.reads(form)
    seen = {True: 0, False: 0}
    for _ in range(4_000):
        moment = dt.datetime(pick.choice((1, 99, 1900, 2023, 2024, 9999)), pick.randint(1, 12), pick.randint(1, 28),
                             pick.randint(0, 23), pick.randint(0, 59), pick.randint(0, 59))
        value = moment.strftime(form)
        for _ in range(pick.randrange(3)):
            at = pick.randrange(len(value) + 1)
            value = value[:at] + pick.choice(PIECES) + value[at + pick.randrange(3):]
        assert test(value) == truth(value, form), (value, form)
        seen[truth(value, form)] += 1
    assert min(seen.values()) > 300, seen


def test_what_is_no_form() -> None:
    with pytest.raises(ValueError, match="directive"):
        times.reads("%Y-%Q")
