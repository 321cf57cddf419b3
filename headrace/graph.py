"""A plan as a picture: Mermaid text, and a plain SVG drawn here, in layers from left to right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import mean

from headrace.plan import REJECTS, ROWS, Edge, Plan

ROW, LANE, GAP_X, GAP_Y, PAD = 46, 10, 110, 22, 24  # pixels: heights of a box and of a lane past it, gaps, margin
CHAR = 7.4  # a character of the 12-pixel type
FILL = {"source": "#dbeafe", "step": "#ffffff", "kafka": "#dcfce7", "quarantine": "#fee2e2", "dropped": "#f3f4f6"}
STROKE = {"source": "#2563eb", "step": "#475569", "kafka": "#16a34a", "quarantine": "#dc2626", "dropped": "#9ca3af"}


@dataclass(frozen=True, slots=True)
class Node:
    """A box: `kind` is source, step, kafka, quarantine or dropped; `title` stands above `below`."""

    id: str
    kind: str
    title: str
    below: str


@dataclass(frozen=True, slots=True)
class Arrow:
    start: str
    end: str
    label: str


@dataclass(frozen=True, slots=True)
class Box:
    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width


def drawing(plan: Plan) -> tuple[list[Node], list[Arrow]]:
    """The boxes, each after what it reads, and the arrows between them; an arrow has a label where it needs one."""
    names = {source.name for source in plan.sources}
    nodes = [Node(source.name, "source", source.config.topic, source.schema.name.rpartition(".")[2])
             for source in plan.sources]
    arrows = []

    def _id(step: str) -> str:
        return step if step in names else f"step_{step}"

    def arrow(edge: Edge, end: str) -> Arrow:
        return Arrow(_id(edge.step), end, "" if edge.relationship == ROWS.relationship else edge.relationship)

    for step in plan.steps:
        nodes.append(Node(_id(step.name), "step", step.name, step.kind))
        arrows += [arrow(edge, _id(step.name)) for edge in step.inputs]
    for at, sink in enumerate(plan.sinks):
        below = "quarantine" if sink.schema is None else sink.schema.name.rpartition(".")[2]
        nodes.append(Node(f"sink{at}", sink.kind, sink.name, below))
        rejects = [Edge(name, REJECTS.relationship) for name in sorted(names)] if plan.rejects == sink.name else []
        arrows += [arrow(edge, f"sink{at}") for edge in (*sink.inputs, *rejects)]
    for at, edge in enumerate(plan.drop):
        nodes.append(Node(f"drop{at}", "dropped", "dropped", str(edge)))
        arrows.append(arrow(edge, f"drop{at}"))
    return nodes, arrows


def mermaid(plan: Plan) -> str:
    """The flow as a Mermaid flowchart, for Markdown that renders it."""
    nodes, arrows = drawing(plan)
    shape = {"source": ('[("', '")]'), "step": ('["', '"]'), "dropped": ('>"', '"]')}
    lines = [f"---\ntitle: {plan.flow}\n---", "flowchart LR"]
    for node in nodes:
        start, end = shape.get(node.kind, ('[("', '")]'))
        text = f"{_text(node.title)}<br/><small>{_text(node.below)}</small>"
        lines.append(f"  {_safe(node.id)}{start}{text}{end}:::{node.kind}")
    for arrow in arrows:
        label = f"|{_text(arrow.label)}|" if arrow.label else ""
        lines.append(f"  {_safe(arrow.start)} -->{label} {_safe(arrow.end)}")
    lines += [f"  classDef {kind} fill:{FILL[kind]},stroke:{STROKE[kind]},color:#0f172a" for kind in FILL]
    return "\n".join(lines) + "\n"


def _safe(name: str) -> str:
    """An identifier Mermaid takes: a hyphen could read as the beginning of an arrow."""
    return name.replace("-", "__")


def _text(text: str) -> str:
    """Mermaid writes entities with #, so that a # of ours must be one."""
    return text.replace("#", "#35;").replace('"', "#34;").replace("<", "#60;").replace(">", "#62;")


def svg(plan: Plan) -> str:
    """The flow as an SVG document of its own: no script, no font to load, no link."""
    nodes, arrows = drawing(plan)
    columns, routes = _layers(nodes, arrows)
    place: dict[str, Box] = {}
    left, bottom = float(PAD), 0.0
    for column in columns:
        width = max(CHAR * max(len(n.title), len(n.below)) + 24 for n in column)
        top = PAD + 28.0
        for node in column:
            height = LANE if node.kind == "lane" else ROW
            place[node.id] = Box(left, top, width, height)
            bottom = max(bottom, top + height)
            top += height + GAP_Y
        left += width + GAP_X
    body = "\n".join([*_paths(arrows, routes, place), *_boxes(nodes, place)])
    w, h = round(left - GAP_X + PAD), round(bottom + PAD)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img">
<title>{escape(plan.flow)}</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>
<rect width="{w}" height="{h}" fill="#ffffff"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="12">
<text x="{PAD}" y="{PAD}" font-size="14" font-weight="bold" fill="#0f172a">{escape(plan.flow)}</text>
{body}
</g>
</svg>
"""


def _layers(nodes: list[Node], arrows: list[Arrow]) -> tuple[list[list[Node]], dict[Arrow, list[str]]]:
    """Boxes in columns, each right of all it reads, sinks in the last; and the boxes and lanes each arrow goes by.

    An arrow that spans columns has a lane in each of those between, so that it passes beside their boxes. Columns are
    ordered by where their arrows come from, so that few of them cross.
    """
    depth: dict[str, int] = {}
    for node in nodes:  # each stands after what it reads
        depth[node.id] = max((depth[a.start] + 1 for a in arrows if a.end == node.id), default=0)
    last = max(depth.values())
    columns: list[list[Node]] = [[] for _ in range(last + 1)]
    for node in nodes:
        depth[node.id] = last if node.kind in ("kafka", "quarantine") else depth[node.id]
        columns[depth[node.id]].append(node)
    routes: dict[Arrow, list[str]] = {}
    for at, arrow in enumerate(arrows):
        between = range(depth[arrow.start] + 1, depth[arrow.end])
        lanes = [Node(f"lane{at}.{column}", "lane", "", "") for column in between]
        for lane, column in zip(lanes, between, strict=True):
            columns[column].append(lane)
        routes[arrow] = [arrow.start, *(lane.id for lane in lanes), arrow.end]
    rank: dict[str, float] = {}
    before: dict[str, list[tuple[str, float]]] = {}
    for arrow, route in routes.items():
        for one, next_one in pairwise(route):  # labelled arrows leave below the main one
            before.setdefault(next_one, []).append((one, 0.3 if arrow.label and one == arrow.start else 0.0))
    for column_nodes in columns:
        column_nodes.sort(key=lambda n: mean([rank[b] + down for b, down in before.get(n.id, [])] or [0.0]))
        rank |= {node.id: float(at) for at, node in enumerate(column_nodes)}
    return columns, routes


def _paths(arrows: list[Arrow], routes: dict[Arrow, list[str]], place: dict[str, Box]) -> Iterator[str]:
    """Arrows leave and arrive spread over a box's side, in the order of their other ends."""
    def port(arrow: Arrow, box: str, beside: list[tuple[float, Arrow]]) -> float:
        order = [a for _, a in sorted(beside, key=lambda pair: pair[0])]
        return place[box].top + place[box].height * (order.index(arrow) + 1) / (len(order) + 1)

    for arrow in arrows:
        route = routes[arrow]
        leaving = [(place[routes[a][1]].top, a) for a in arrows if a.start == arrow.start]
        arriving = [(place[routes[a][-2]].top, a) for a in arrows if a.end == arrow.end]
        x, y = place[arrow.start].right, port(arrow, arrow.start, leaving)
        d = [f"M{x:.0f} {y:.0f}"]
        label = None
        for stop in route[1:]:
            box = place[stop]
            to = port(arrow, stop, arriving) if stop == arrow.end else box.top + box.height / 2
            d.append(f"C{x + GAP_X / 2:.0f} {y:.0f} {box.left - GAP_X / 2:.0f} {to:.0f} {box.left:.0f} {to:.0f}")
            label = label or ((x + box.left) / 2 + 6, y + (to - y) * 0.65 + 3)  # past the bend: arrows have parted
            x, y = box.right, to
            if stop != arrow.end:
                d.append(f"H{x:.0f}")
        yield f'<path d="{" ".join(d)}" fill="none" stroke="#64748b" marker-end="url(#tip)"/>'
        if arrow.label and label:
            yield (f'<text x="{label[0]:.0f}" y="{label[1]:.0f}" font-size="10" fill="#475569" text-anchor="middle" '
                   f'paint-order="stroke" stroke="#ffffff" stroke-width="4">{escape(arrow.label)}</text>')


def _boxes(nodes: list[Node], place: dict[str, Box]) -> Iterator[str]:
    for node in nodes:
        x, y, w = place[node.id].left, place[node.id].top, place[node.id].width
        dash = ' stroke-dasharray="4 3"' if node.kind == "dropped" else ""
        yield (f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{ROW}" rx="6" fill="{FILL[node.kind]}" '
               f'stroke="{STROKE[node.kind]}"{dash}/>')
        yield f'<text x="{x + 12:.0f}" y="{y + 19:.0f}" font-weight="bold" fill="#0f172a">{escape(node.title)}</text>'
        yield f'<text x="{x + 12:.0f}" y="{y + 36:.0f}" fill="#475569">{escape(node.below)}</text>'
