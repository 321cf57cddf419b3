"""Which instance of a flow this process is: a stable name, so that a restart takes over its own transactions at once.

Two hosts must never claim the same slot (they would fence each other for ever), so a name is either given, or the
StatefulSet pod's, or a random one kept in `.headrace/instances/` under a lock that only one living process holds.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTANCES_MAX = 256
_STATEFUL_POD = re.compile(r".+-\d+$")


def pod_name() -> str | None:
    """A StatefulSet pod's own name (`workers-3`), which Kubernetes keeps stable and unique."""
    host = os.environ.get("HOSTNAME", "")
    return host if "KUBERNETES_SERVICE_HOST" in os.environ and _STATEFUL_POD.match(host) else None


@contextmanager
def claim(state: Path, flow: str, given: str | None = None) -> Iterator[str]:
    """The instance's name, ours for the length of the block. `state` is the project's `.headrace` folder."""
    if name := given or pod_name():
        yield name
        return
    folder = state / "instances"
    folder.mkdir(parents=True, exist_ok=True)
    for at in range(INSTANCES_MAX):
        with (folder / f"{flow}.{at}").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            file.seek(0)
            name = file.read().strip()
            if not name:
                name = uuid.uuid4().hex[:12]
                file.write(name)
                file.flush()
            yield name
            return
    raise AssertionError(f"more than {INSTANCES_MAX} instances of {flow} on one machine")
