"""Python environments beside ours, for what needs versions of its own: from pinned ones, installed once for a user."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from headrace.stack.jars import cache_folder


def environment(name: str, lock: Path) -> Path:
    """The environment's folder, by the lock file's content; whoever comes second waits for who installs it."""
    base = cache_folder()
    base.mkdir(parents=True, exist_ok=True)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = base / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}-py{python}"
    with (base / f"{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
            uv = subprocess.run([sys.executable, "-m", "uv", "--version"], capture_output=True, check=False)
            install = (["uv", "pip", "install", "-q", "--python"] if uv.returncode == 0 else ["pip", "-q", "--python"])
            rest = [] if uv.returncode == 0 else ["install"]
            subprocess.run([sys.executable, "-m", *install, str(folder / "bin" / "python"), *rest, "-r", str(lock)],
                           check=True)
            (folder / "complete").touch()
    return folder
