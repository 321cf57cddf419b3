"""The connector files that a command is given: some files, folders of them, or the project's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace.connect.config import Connector, examine
from headrace.errors import ConfigError, UserError

PATTERNS = ("*.json", "*.properties")


def paths(given: Sequence[Path], project: Path) -> list[Path]:
    """Raises UserError: no such file, or a folder without any."""
    out: list[Path] = []
    for path in given or [project / "connectors"]:
        if path.is_dir():
            found = sorted(one for pattern in PATTERNS for one in path.glob(pattern))
            if not found:
                raise UserError(f"there are no connector files in {path}", hint="they end in .json or .properties")
            out += found
        elif path.is_file():
            out.append(path)
        else:
            raise UserError(f"there is no file {path}")
    return list(dict.fromkeys(out))


def load(given: Sequence[Path], project: Path) -> list[Connector]:
    """The connectors of the files. Raises ConfigError with all that is wrong in any; connects to nothing.

    References to secrets are left to the worker, which has them.
    """
    looked = [examine(path, project, secrets=False) for path in paths(given, project)]
    errors = [one for _, findings in looked for one in findings if one.severity == "error"]
    if errors:
        raise ConfigError(errors)
    return [made for made, _ in looked if made is not None]
