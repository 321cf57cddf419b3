"""A plan as a picture: Mermaid text, and a plain SVG drawn here, in layers from left to right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from headrace.flow import SOURCE
from headrace.plan import REJECTS, Edge, Plan

ROW, GAP_X, GAP_Y, PAD, CHAR = 46, 130, 26, 24, 7.4  # pixels; a character of the 12-pixel monospace type is 7.4 wide
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


def drawing(plan: Plan) -> tuple[list[Node], list[Arrow]]:
    """The boxes, each after what it reads, and the arrows between them; an arrow has a label where it needs one."""
    nodes = [Node(SOURCE, "source", plan.source.config.topic, plan.source.schema.name.rpartition(".")[2])]
    arrows = []
    mains = {s.name: s.processor.main for s in plan.steps} | {SOURCE: "success"}

    def arrow(edge: Edge, end: str) -> Arrow:
        return Arrow(_id(edge.step), end, "" if edge.relationship == mains[edge.step] else edge.relationship)

    for step in plan.steps:
        nodes.append(Node(_id(step.name), "step", step.name, step.kind))
        arrows.append(arrow(step.input, _id(step.name)))
    for at, sink in enumerate(plan.sinks):
        below = "quarantine" if sink.schema is None else sink.schema.name.rpartition(".")[2]
        nodes.append(Node(f"sink{at}", sink.kind, sink.name, below))
        rejects = [REJECTS] if plan.rejects == sink.name else []
        arrows += [arrow(edge, f"sink{at}") for edge in (*sink.inputs, *rejects)]
    for at, edge in enumerate(plan.drop):
        nodes.append(Node(f"drop{at}", "dropped", "dropped", str(edge)))
        arrows.append(arrow(edge, f"drop{at}"))
    return nodes, arrows


def _id(step: str) -> str:
    return step if step == SOURCE else f"step_{step}"


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
    return escape(text, quote=True).replace("#", "#35;") if "#" in text else escape(text, quote=True)


def svg(plan: Plan) -> str:
    """The flow as an SVG document of its own: no script, no font to load, no link."""
    nodes, arrows = drawing(plan)
    layers = _layers(nodes, arrows)
    place: dict[str, tuple[float, float, float]] = {}  # id → left, top, width
    left, bottom = float(PAD), 0.0
    for layer in layers:
        width = max(CHAR * max(len(n.title), len(n.below)) + 24 for n in layer)
        for at, node in enumerate(layer):
            top = PAD + 28 + at * (ROW + GAP_Y)
            place[node.id] = (left, top, width)
            bottom = max(bottom, top + ROW)
        left += width + GAP_X
    body = "\n".join([*_paths(arrows, place), *_boxes(nodes, place)])
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


def _layers(nodes: list[Node], arrows: list[Arrow]) -> list[list[Node]]:
    """Boxes in columns: each one right of all it reads; ends stand in the last columns they can, in the order that
    keeps them beside what they read, so that few arrows cross."""
    depth = {node.id: 0 for node in nodes}
    for node in nodes:  # each stands after what it reads
        depth[node.id] = max((depth[a.start] + 1 for a in arrows if a.end == node.id), default=0)
    last = max(depth.values())
    starts = {a.start for a in arrows}
    columns: list[list[Node]] = [[] for _ in range(last + 1)]
    for node in nodes:
        ends = node.id not in starts and node.kind in ("kafka", "quarantine")
        columns[last if ends else depth[node.id]].append(node)
    rank = {node.id: float(at) for column in columns for at, node in enumerate(column)}

    def height(node: Node) -> float:
        above = [rank[a.start] + (0.5 if a.label else 0) for a in arrows if a.end == node.id]
        return sum(above) / len(above) if above else 0.0

    for column in columns[1:]:
        column.sort(key=height)
        rank |= {node.id: float(at) for at, node in enumerate(column)}
    return columns


def _paths(arrows: list[Arrow], place: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    """Arrows leave and arrive spread over a box's side; those that pass over a column run below its boxes' middle."""
    for start_end in arrows:
        out = [a for a in arrows if a.start == start_end.start]
        into = [a for a in arrows if a.end == start_end.end]
        x0, y0, w0 = place[start_end.start]
        x1, y1, _ = place[start_end.end]
        x0 += w0
        y0 += ROW * (out.index(start_end) + 1) / (len(out) + 1)
        y1 += ROW * (into.index(start_end) + 1) / (len(into) + 1)
        bend = GAP_X / 2
        yield (f'<path d="M{x0:.0f} {y0:.0f} C{x0 + bend:.0f} {y0:.0f} {x1 - bend:.0f} {y1:.0f} {x1:.0f} {y1:.0f}" '
               f'fill="none" stroke="#64748b" marker-end="url(#tip)"/>')
        if start_end.label:
            yield (f'<text x="{x0 + 6:.0f}" y="{y0 - 4:.0f}" font-size="10" fill="#475569" paint-order="stroke" '
                   f'stroke="#ffffff" stroke-width="3">{escape(start_end.label)}</text>')


def _boxes(nodes: list[Node], place: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    for node in nodes:
        x, y, w = place[node.id]
        dash = ' stroke-dasharray="4 3"' if node.kind == "dropped" else ""
        yield (f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{ROW}" rx="6" fill="{FILL[node.kind]}" '
               f'stroke="{STROKE[node.kind]}"{dash}/>')
        yield f'<text x="{x + 12:.0f}" y="{y + 19:.0f}" font-weight="bold" fill="#0f172a">{escape(node.title)}</text>'
        yield f'<text x="{x + 12:.0f}" y="{y + 36:.0f}" fill="#475569">{escape(node.below)}</text>'
