"""`headrace lag`: how far consumer groups are behind, in records and in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import Json, dump, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.lag import GroupLag, PartitionLag, Trend

SAMPLES_MAX = 10


def register(app: typer.Typer) -> None:
    @app.command()
    def lag(
        groups: Annotated[list[str] | None, typer.Argument(metavar="[GROUP]…", help="Default: every group.")] = None,
        watch: Annotated[bool, typer.Option("--watch", help="Measure again and again, until Ctrl-C.")] = False,
        interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two measurements.")] = 2.0,
        json: bool = Json,
    ) -> None:
        """How far consumer groups are behind, in records and in time.

        Records: from what the group committed to the last committed record. Time: the age of the oldest record not
        read, by its own timestamp. With --watch also where the lag is going, and when it will be 0.
        """
        from headrace import settings
        from headrace.lag import as_json, measure

        here = settings.load()
        if watch:
            _watch(here, groups or [], interval, json)
            return
        found = measure(here, groups or [])
        if json:
            dump(as_json(found))
        else:
            from rich.console import Console

            Console().print(_drawn(found, {}))


def _watch(here: Any, names: list[str], interval: float, json: bool) -> None:
    import time
    from contextlib import ExitStack

    from rich.live import Live

    from headrace.errors import BrokerError
    from headrace.lag import Known, as_json, measure, trend
    from headrace.topics import admin

    client = admin(here)
    known: Known = {}
    history: dict[str, list[tuple[float, GroupLag]]] = {}
    with ExitStack() as ends:
        live = None if json else ends.enter_context(Live(auto_refresh=False))
        try:
            while True:
                begun = time.monotonic()
                try:
                    found = measure(here, names, client=client, known=known, read_s=max(1.0, interval))
                except BrokerError as error:
                    say(f"{error}; trying again")  # a watch outlives its broker's restart
                    time.sleep(interval)
                    continue
                for name, group in found.items():
                    history[name] = [*history.get(name, []), (begun, group)][-SAMPLES_MAX:]
                trends = {name: trend(history[name]) for name in found}
                if live is None:
                    dump(as_json(found, trends))
                else:
                    live.update(_drawn(found, trends), refresh=True)
                time.sleep(max(0.0, interval - (time.monotonic() - begun)))
        except KeyboardInterrupt:
            return


def _drawn(groups: Mapping[str, GroupLag], trends: Mapping[str, Trend | None]) -> Any:
    """The groups as one rich table: a line with the total of each group, then a line a partition.

    Notes: `n open`, beyond the end in open transactions; `n markers`, part of the lag that nobody will ever read.
    """
    from rich import box
    from rich.table import Table

    silent = [name for name, group in groups.items() if not group.partitions]
    drawn = Table(title=None if groups else "There is no consumer group yet.", box=box.SIMPLE_HEAD, pad_edge=False,
                  caption_justify="left", caption=f"No offsets: {', '.join(silent)}" if silent else None)
    names = [*groups.keys() - silent, *(f"  {topic}" for group in groups.values() for topic, _ in group.partitions)]
    drawn.add_column("group, topic", overflow="fold", min_width=min(24, max(map(len, names), default=0)))
    for name in ("part", "committed", "end", "lag", "behind"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("", overflow="fold", min_width=9)
    for name, group in groups.items():
        if name in silent:
            continue
        moving = trends.get(name)
        drawn.add_row(f"[bold]{name}[/]", "", "", "", f"[bold]{group.lag:,}[/]", _time(group.lag_s),
                      f"{group.state}, {_direction(moving)}" if moving else group.state)
        last = list(group.partitions)[-1:]
        for (topic, partition), p in group.partitions.items():
            drawn.add_row(f"  {topic}", str(partition), _number(p.committed), _number(p.end), _number(p.lag),
                          _time(p.lag_s), _notes(p), end_section=(topic, partition) in last)
    return drawn


def _notes(p: PartitionLag) -> str:
    said = ((p.open, "open"), (p.markers, "markers"))
    return ", ".join([f"{n:,} {what}" for n, what in said if n] + ["no commit"] * (p.committed is None))


def _number(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"


def _time(seconds: float | None) -> str:
    """Seconds for people: 0s, 4.2s, 3m20s, 5h12m, 40d."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds else "0s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m" if whole < 86400 else f"{whole // 86400:,}d"


def _direction(moving: Trend) -> str:
    eta = f", done in {_time(moving.eta_s)}" if moving.eta_s else ""
    return f"{moving.direction}{eta}; {moving.read_rate:,.0f}/s read, {moving.write_rate:,.0f}/s written"
