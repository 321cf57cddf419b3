"""Blessings and pushed models as TFX's Evaluator, InfraValidator and Pusher write them, so that either may follow.

    <evaluator's folder>/BLESSED | NOT_BLESSED                      empty files; the other one is removed
    <infra validator's folder>/INFRA_BLESSED | INFRA_NOT_BLESSED
    <destination>/<version>/…                                       the model; model servers take the highest number

What TFX keeps in ML Metadata beside the folder comes back as a dict: the artifact's custom properties, by TFX's names.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from headrace.errors import UserError

NAMES: Mapping[str, tuple[str, str]] = {"model": ("BLESSED", "NOT_BLESSED"),
                                        "infra": ("INFRA_BLESSED", "INFRA_NOT_BLESSED")}
"""What is blessed → (file of a yes, file of a no)."""
Properties = dict[str, int | str]


def bless(folder: Path, blessed: bool, *, kind: str = "model", model: str | None = None,
          baseline: str | None = None) -> Properties:
    """Writes the verdict into `folder`, made if need be; {"blessed": 1 | 0, "current_model": …, "baseline_model": …}.

    `model` and `baseline` are the URIs of what was judged and of what it was held against.
    """
    yes, no = NAMES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (no if blessed else yes)).unlink(missing_ok=True)  # first, so that there are never two verdicts
    (folder / (yes if blessed else no)).write_bytes(b"")
    given = {"current_model": model, "baseline_model": baseline}
    return {"blessed": int(blessed), **{k: v for k, v in given.items() if v is not None}}


def blessed(folder: Path, kind: str = "model") -> bool | None:
    """The verdict in a folder; None when there is none. Raises UserError when there are both."""
    yes, no = ((folder / name).is_file() for name in NAMES[kind])
    if yes and no:
        raise UserError(f"{folder} holds both {' and '.join(NAMES[kind])}",
                        hint="the gate writes one of them: delete both and judge again")
    return True if yes else False if no else None


def push(model: Path, destination: Path, version: int, *, verdict: Path | None = None,
         infra: Path | None = None) -> Properties:
    """Copies a model's folder to destination/version, if every verdict's folder given is blessed.

    {"pushed": 1, "pushed_destination": …, "pushed_version": …}, or {"pushed": 0}. A version that is there is left as
    it is. The folder appears whole, by a rename: a model server never sees half a model. Raises UserError.
    """
    if version < 1:
        raise UserError(f"{version} is no version to push", hint="model servers take folders named by whole numbers")
    if not model.is_dir():
        raise UserError(f"there is no model in {model}")
    if any(where is not None and not blessed(where, kind) for where, kind in ((verdict, "model"), (infra, "infra"))):
        return {"pushed": 0}
    target = destination / str(version)
    if not target.exists():
        destination.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pushing-", dir=destination) as scratch:
            whole = Path(scratch) / str(version)
            shutil.copytree(model, whole)
            try:
                whole.rename(target)
            except OSError:
                if not target.is_dir():  # else another pusher was quicker, with the same version
                    raise
    return {"pushed": 1, "pushed_destination": str(target), "pushed_version": str(version)}
