"""Pictures of flows: every part is in them, once, and the SVG's boxes and arrows meet."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from headrace import graph
from headrace import plan as planning
from headrace.cli import build
from tests.unit import flowkit

pytestmark = pytest.mark.unit
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def plan(tmp_path: Path) -> planning.Plan:
    return planning.load(flowkit.write(tmp_path))


def test_a_drawing_has_every_part_and_every_edge(plan: planning.Plan) -> None:
    nodes, arrows = graph.drawing(plan)
    titles = {n.id: n.title for n in nodes}
    assert sorted(titles.values()) == ["check", "dropped", "enrich", "flights.checked", "flights.departures",
                                       "flights.far", "flights.quarantine", "split"]
    assert [(titles[a.start], a.label, titles[a.end]) for a in arrows] == [
        ("flights.departures", "", "check"), ("check", "", "enrich"), ("enrich", "", "split"),
        ("enrich", "", "flights.checked"), ("split", "far", "flights.far"), ("check", "failure", "flights.quarantine"),
        ("flights.departures", "reject", "flights.quarantine"), ("split", "unmatched", "dropped")]


def test_mermaid_names_each_node_once_and_draws_every_arrow(plan: planning.Plan) -> None:
    text = graph.mermaid(plan)
    assert text.splitlines()[3] == "flowchart LR"
    declared = re.findall(r"^  (\w+)[\[>]", text, re.M)
    drawn = re.findall(r"^  (\w+) -->(?:\|[\w ]+\|)? (\w+)$", text, re.M)
    assert len(declared) == len(set(declared)) == 8
    assert len(drawn) == 8
    assert {end for pair in drawn for end in pair} == set(declared)


def test_mermaid_escapes_what_would_end_a_label() -> None:
    assert graph._text('a"b<c>#') == "a#34;b#60;c#62;#35;"


def test_the_svg_is_whole_and_its_boxes_do_not_overlap(plan: planning.Plan) -> None:
    root = ElementTree.fromstring(graph.svg(plan))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height")) for r in root.iter(f"{SVG}rect")
             if "rx" in r.attrib]
    assert len(boxes) == 8
    for x, y, w, h in boxes:
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
    for (x, y, w, h), (x2, y2, w2, h2) in combinations(boxes, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    paths = [p.attrib["d"] for p in root.iter(f"{SVG}path") if "marker-end" in p.attrib]
    assert len(paths) == 8
    for path in paths:
        numbers = [float(n) for n in re.findall(r"-?\d+", path)]
        (x0, y0), (x1, y1) = numbers[:2], numbers[-2:]
        assert any(abs(x0 - x - w) <= 1 and y <= y0 <= y + h for x, y, w, h in boxes), "leaves a box's right side"
        assert any(abs(x1 - x) <= 1 and y <= y1 <= y + h for x, y, w, h in boxes), "ends at a box's left side"
    shown = " ".join(t.text or "" for t in root.iter(f"{SVG}text"))
    for word in ("check", "flights.far", "quarantine", "failure", "reject", "split.unmatched"):
        assert word in shown


def test_an_arrow_past_a_column_does_not_cross_its_boxes(plan: planning.Plan) -> None:
    """What goes from the first column to the last runs level, in a lane of its own, across the columns between."""
    root = ElementTree.fromstring(graph.svg(plan))
    boxes = [tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height")) for r in root.iter(f"{SVG}rect")
             if "rx" in r.attrib]
    levels = 0
    for path in root.iter(f"{SVG}path"):
        for x_from, level, x_to in re.findall(r"(\d+) (\d+) H(\d+)", path.attrib["d"]):
            levels += 1
            for x, y, w, h in boxes:
                assert not (x < float(x_to) and float(x_from) < x + w and y <= float(level) <= y + h)
    assert levels >= 5


def test_the_command_prints_mermaid_or_writes_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flowkit.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "flowchart LR" in CliRunner().invoke(build(), ["graph", "departures"]).stdout
    done = CliRunner().invoke(build(), ["graph", "departures", "--svg", "out.svg"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert ElementTree.parse(tmp_path / "out.svg").getroot().tag == f"{SVG}svg"
    assert CliRunner().invoke(build(), ["graph", "departures", "--svg", "-"]).stdout.startswith("<svg")
