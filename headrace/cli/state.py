"""`headrace state`: what a flow's steps remember between batches."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.common import Json, dump, table

KEY_CHARACTERS = 60


def register(app: typer.Typer) -> None:
    @app.command()
    def state(
        flow: Annotated[str, typer.Argument(help="A flow file, or the name of one in flows/.")],
        group: Annotated[str | None, typer.Option(help="Consumer group. Default: headrace.<flow>.")] = None,
        step: Annotated[str | None, typer.Option(help="Only this step.")] = None,
        keys: Annotated[int, typer.Option(min=0, max=100_000, help="Show so many entries of each step, too.")] = 0,
        json: bool = Json,
    ) -> None:
        """What a flow's steps remember: entries and bytes by step and partition.

        Read from the changelog, so it is what is committed, whether workers run or not. With --json one object for each
        step and partition, then one for each entry shown, its key in hexadecimal.
        """
        from headrace import settings
        from headrace.errors import UserError
        from headrace.flow import find, load
        from headrace.marked import nearest
        from headrace.plan import plan
        from headrace.state.look import entries, sizes

        here = settings.load()
        made = plan(load(find(flow, here.project)), here.project)
        stateful = [each.name for each in made.steps if each.processor.stateful]
        if not stateful:
            raise UserError(f"the flow {made.flow} keeps no state: none of its steps remembers records",
                            hint="the little that a trigger keeps lies with the committed offsets")
        if step is not None and step not in stateful:
            raise UserError(f"{made.flow} has no step “{step}” that keeps state{nearest(step, stateful)}",
                            hint=f"there is {', '.join(stateful)}")
        named = group or f"headrace.{made.flow}"
        found = [entry for entry in entries(here, named) if step is None or entry.named(step)]
        by_step = sizes(iter(found))
        shown = [entry for name in dict.fromkeys(at for at, _ in by_step)
                 for entry in [each for each in found if each.step == name][:keys]]
        if json:
            for (name, partition), size in by_step.items():
                dump({"step": name, "partition": partition, "entries": size.entries, "bytes": size.size_bytes})
            for entry in shown:
                dump({"step": entry.step, "partition": entry.partition, "key": entry.key.hex(),
                      "bytes": entry.size_bytes, "expires": entry.expires or None})
            return
        rows = [[name, partition, *size] for (name, partition), size in by_step.items()]
        total = ["all", None, sum(size.entries for size in by_step.values()),
                 sum(size.size_bytes for size in by_step.values())]
        table(f"{named}: {made.flow}", ["step", "partition", "entries", "bytes"], [*rows, total])
        if shown:
            table("entries", ["step", "partition", "key", "bytes", "expires"],
                  [[entry.step, entry.partition, _text(entry.key), entry.size_bytes, entry.expires or None]
                   for entry in shown])


def _text(key: bytes) -> str:
    """Bytes as a person can read them, cut to a line."""
    text = str(key)[2:-1]
    return text if len(text) <= KEY_CHARACTERS else text[:KEY_CHARACTERS - 1] + "…"
