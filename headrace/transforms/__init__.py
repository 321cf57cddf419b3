"""Kafka Connect's single message transforms and predicates, on columns of records.

    chain.py      `transforms=…` of a config → a `Chain`, and what is wrong; applying it
    classes.py    which there are, by Java name and short name; the definitions of their keys
    base.py       what each is made of · fields.py: structs and maps as columns by name
    dates.py, dateparse.py, javaregex.py, numbers.py, casting.py, literals.py: Java's ways with dates, patterns, numbers

The others are one transform each. Semantics are those of Kafka Connect 4.3.1, whose classes are the oracle of
tests/external/test_transforms_oracle.py.
"""

from headrace.transforms.chain import Chain, Stage, chain_of
from headrace.transforms.classes import (
           PREDICATES,
           TRANSFORMS,
           Definition,
           definitions,
           predicate_class,
           transform_class,
)

__all__ = ["PREDICATES", "TRANSFORMS", "Chain", "Definition", "Stage", "chain_of", "definitions", "predicate_class",
           "transform_class"]
