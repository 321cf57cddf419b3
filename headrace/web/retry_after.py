"""How long a server asks to be left alone: the header Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(written: str, otherwise: float, now: datetime | None = None) -> float:
    """Seconds, from seconds or from a date (one that has passed is 0); `otherwise` where it says neither."""
    written = written.strip()
    if written.isdigit():
        return float(written)
    try:
        at = parsedate_to_datetime(written)
    except ValueError:
        return otherwise
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds())
