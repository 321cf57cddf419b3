"""What steps remember between batches, exactly as old as the committed offsets.

    small     JSON, a few hundred characters a partition: rides in the committed offset's metadata
    keyed     bytes by key, any number: layers over what is committed, so that an abort leaves no trace
    bottom    where the committed part of it lies: RocksDB on disk, or memory for tests
    both      the two as one, which is what a worker has
    changelog a compacted topic, written in the same transaction, from which it is restored
"""

from headrace.state.both import State
from headrace.state.keyed import KeyedState, View
from headrace.state.small import METADATA_CHARS_MAX, StateStore, read_metadata

__all__ = ["METADATA_CHARS_MAX", "KeyedState", "State", "StateStore", "View", "read_metadata"]
