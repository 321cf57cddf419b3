"""Filter: drops records; those of its predicate, mostly."""

from __future__ import annotations

from headrace.records import Records
from headrace.transforms.base import Refuse, Transform, TransformConfig


class FilterConfig(TransformConfig):
    """Nothing to say."""


class Filter(Transform[FilterConfig]):
    """Drops every record it is given."""

    Config = FilterConfig

    def apply(self, records: Records, refuse: Refuse) -> list[Records]:
        return []
