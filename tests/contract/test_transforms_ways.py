"""Two ways to the same records: each alone or all at once; a text read by one expression over all, or by itself."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from headrace.records.records import Records
from headrace.transforms import TRANSFORMS, chain_of
from headrace.transforms.base import PACKAGE
from headrace.transforms.dateparse import DEFAULTS, Reader, Unreadable, fast_of, slow
from headrace.transforms.dates import format_ms
from tests.external import transform_cases as cases
from tests.external.test_transforms_oracle import CONFIGS, FORMATS, configured, names, ours, spoilt

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_alone_and_all_at_once(name: str) -> None:
    """A transform holds no state and looks at no neighbours."""
    rng = random.Random(name)
    short = name.removeprefix(PACKAGE).partition("$")[0]
    for _ in range(40):
        given = cases.records(rng, 6)
        config = configured(name, CONFIGS[short](rng, names(rng, given, name.endswith("$Key"))))
        together = ours(config, [given])
        alone = ours(config, [given.take(np.array([at])) for at in range(6)])
        assert together.keys() == alone.keys(), config
        for at, record in together.items():
            if isinstance(record, str):
                assert record == alone[at], config
            else:
                assert cases.comparable(record) == cases.comparable(alone[at]), config


def test_the_given_records_are_never_changed() -> None:
    rng = random.Random("unchanged")
    for name in sorted(TRANSFORMS):
        short = name.removeprefix(PACKAGE).partition("$")[0]
        given = cases.records(rng, 5)
        before: Records = given.take(np.arange(5))
        chain, _ = chain_of(configured(name, CONFIGS[short](rng, names(rng, given, name.endswith("$Key")))))
        chain.apply([given])
        assert repr(cases.requests(given)) == repr(cases.requests(before)), name  # as text: NaN is itself there
        assert given.index.tolist() == before.index.tolist()


@pytest.mark.parametrize("pattern", [*FORMATS, "yyyyMMddHHmmss", "yyMMddHHmm", "MMM d yy h:mma X", "HH:mm:ss.SSSXXX"])
def test_dates_read_fast_and_slow(pattern: str) -> None:
    rng = random.Random(pattern)
    reader = Reader(pattern, -1_000_000_000_000)
    fast = fast_of(reader)
    if fast is None:
        assert {"E", "D", "z"} & set(reader.order) or not reader.order, "this pattern should have a fast way"
        return
    instants = pa.array([rng.randrange(-10**13, 10**13) for _ in range(300)])
    texts = [spoilt(rng, each) for each in format_ms(pattern, instants).to_pylist()]
    matched, found = fast.read(pa.array(texts), reader)
    assert matched.any()
    for at in np.flatnonzero(matched).tolist():
        try:
            told = {**DEFAULTS, **slow(texts[at], reader)}
        except Unreadable:
            pytest.fail(f"{texts[at]!r} is read the fast way, and not the slow one")
        assert {name: int(each[at]) for name, each in found.items()} == {name: told[name] for name in found}, texts[at]
