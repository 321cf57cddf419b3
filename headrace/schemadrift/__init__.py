"""Schema drift: records of a new writer's schema came. What changed, and what it does to the flow.

    diff.py      two writers' schemas, field by field; how fields meet those of a reader
    drift.py     the changes with their effects, as values
    effects.py   each change's effect on what is read, on the contract (verdicts.py) and on steps: pure
    uses.py      which steps, sinks and expectations of a plan use a column
    watch.py     the ids a flow has seen, partition by partition; a new one is a sighting
    topic.py     which schemas stand in a topic
"""

from headrace.schemadrift.diff import Change, diff
from headrace.schemadrift.drift import Changed, Drift, Effect
from headrace.schemadrift.effects import effects

__all__ = ["Change", "Changed", "Drift", "Effect", "diff", "effects"]
