"""The fault suite: `python -m tests.faults [--short] [--rows 2,4,7] [--seed S] [--count N] [--minutes M] [--json]`.

Brings up a stack of its own, does the rows, prints what became of them; exits 1 on any breach. With the same seed, rows
and counts everything random is the same again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.checker import Outcome
from tests.faults.row import Row
from tests.faults.table import rows
from tests.faults.world import own_stack

COLUMNS = ("#", "fault", "runs", "records", "lost", "doubled", "out of order", "triggers doubled", "recovery s", "took")


def cells(row: Row, out: Outcome, took_s: float) -> list[str]:
    """A line of the table."""
    recovery = f"{statistics.median(out.recoveries_s):.1f} / {max(out.recoveries_s):.1f}" if out.recoveries_s else "–"
    counts = (out.runs, out.records, out.lost, out.doubled, out.disordered, out.triggers_doubled)
    return [str(row.number), row.name, *(f"{n:,}" for n in counts), recovery, f"{took_s:.0f} s"]


def main() -> int:
    ask = argparse.ArgumentParser(prog="python -m tests.faults", description="things broken on purpose")
    ask.add_argument("--short", action="store_true", help="the selection of `make test`")
    ask.add_argument("--rows", help="e.g. 2,4,7; all, if left out")
    ask.add_argument("--seed", type=int, help="of a run that is to be had again")
    ask.add_argument("--count", type=int, help="how often each fault is done, in place of the table's number")
    ask.add_argument("--minutes", type=float, help="for rows that go by the clock")
    ask.add_argument("--json", action="store_true", help="the outcomes as JSON on stdout")
    ask.add_argument("--keep", action="store_true", help="keep the projects and logs of a row that failed")
    args = ask.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing stays behind
    seed = random.randrange(1 << 30) if args.seed is None else args.seed
    chosen = rows(args.rows)
    console = Console(stderr=args.json, highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(*COLUMNS, title=f"seed {seed}", caption="recovery: median / longest")
    outcomes: dict[int, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-faults-") as home, own_stack(Path(home)) as world:
        for row in chosen:
            size, begun = row.sized(short=args.short, count=args.count, minutes=args.minutes), time.monotonic()
            with console.status(f"{row.number} {row.name}: {size}") as status:
                world.says = lambda text, row=row, status=status: _say(console, status, row, text)
                out = outcomes[row.number] = row.done(world, seed, size)
            table.add_row(*cells(row, out, time.monotonic() - begun), style="red" if out.breaches else None)
            console.print("  ".join(cells(row, out, time.monotonic() - begun)), out.notes or "")
            for breach in out.breaches:
                console.print(f"  breach of row {row.number}: {breach}", style="red", markup=False)
            if args.keep and out.breaches:
                console.print("kept:", shutil.copytree(world.folder, tempfile.mkdtemp(), dirs_exist_ok=True))
    console.print(table)
    again = f"python -m tests.faults --seed {seed} --rows {','.join(str(row.number) for row in chosen)}"
    console.print(f"again: {again}{' --short' if args.short else ''}", markup=False, soft_wrap=True)
    if args.json:
        print(json.dumps({"seed": seed, "rows": {n: asdict(out) for n, out in outcomes.items()}}, default=str))
    return int(any(out.breaches for out in outcomes.values()))


def _say(console: Console, status: object, row: Row, text: str) -> None:
    if console.is_terminal:
        status.update(f"{row.number} {row.name}: {text}")  # type: ignore[attr-defined]
    else:
        console.print(f"  {row.number}: {text}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
