"""A flow file as it is written: what is read, and that every mistake is a finding at its line, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace import flow, marked
from headrace.errors import ConfigError, UserError
from tests.unit import flowkit

pytestmark = pytest.mark.unit


def findings(path: Path) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as caught:
        flow.load(path)
    return [(f.line, f.message) for f in caught.value.findings]


def test_a_flow_is_read_as_written(tmp_path: Path) -> None:
    spec = flow.load(flowkit.write(tmp_path))
    assert (spec.flow, spec.owner, spec.source.kind) == ("departures", "flight-ops", "kafka")
    assert [(n, s.kind, s.reads) for n, s in spec.steps.items()] == [
        ("check", "validate", ()), ("enrich", "derive", ()), ("split", "route", ("enrich",))]
    assert spec.sinks["flights.quarantine"].reads == ("check.failure",)
    assert spec.sinks["flights.far"].config == {}
    assert spec.drop == ("split.unmatched",)
    assert [spec.line("steps", "enrich"), spec.line("steps", "enrich", "derive", "absent")] == [7, 7]
    assert spec.line("drop") == 13


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    path = flowkit.write(tmp_path, """\
flow: departures
ownr: me
source: {kafka: {topic: a, schema: departure}}
steps:
  one: {validate: {}, derive: {}}
  two: {derive: [1]}
  three: {from: [one], derive: {}}
  source: {derive: {}}
sinks:
  a/b: {from: one, kafka: {}}
  __own: {from: one, kafka: {}}
  c: {}
tests:
  - {name: t, gven: [], expect: {c: -1}}
""")
    told = findings(path)
    assert [line for line, _ in told] == [2, 5, 6, 8, 10, 11, 12, 14, 14, 14]
    text = "\n".join(message for _, message in told)
    for said in ("unknown key “ownr”; did you mean “owner”?", "these are 2: validate, derive", "must be a mapping",
                 "that is the source's name", "“a/b” is no topic name", "Kafka's own",
                 "there is none", "unknown key “gven”; did you mean “given”?", "“given” is missing", "count"):
        assert said in text, said


@pytest.mark.parametrize(("text", "line", "said"), [
    ("", 0, "is empty"),
    ("- a\n- b\n", 1, "must be a mapping"),
    ("flow: a\nflow: b\n", 2, "is here twice; it is first on line 1"),
    ("flow: a\n  b: [\n", 2, "not YAML"),
    ("flow: [a\n", 2, "not YAML"),
    ("flow: !python/object:os.system x\n", 1, "the tag"),
    ("a: &a {b: 1}\nc: {<<: *a}\n", 2, "cannot be keys"),
    ("? [a]\n: 1\n", 1, "cannot be keys"),
    ("a: &a [*a]\n", 1, "too large or too deep"),
    ("[" * 60 + "]" * 60, 1, "depth"),
    ("\x00", 0, "not YAML"),
    ("--- a\n--- b\n", 2, "another document"),
])
def test_what_is_no_flow_at_all(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    told = findings(path)
    assert any(at == line and said in message for at, message in told), told


def test_a_small_file_cannot_become_a_large_one(tmp_path: Path) -> None:
    """Nine levels of ten aliases would be 10⁹ nodes."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb)
    assert "too large" in findings(path)[0][1]
    path.write_text("# " + "x" * marked.BYTES_MAX)
    assert "bytes" in findings(path)[0][1]
    path.write_bytes(b"flow: \xff")
    assert "UTF-8" in findings(path)[0][1]
    assert "cannot be read" in findings(tmp_path / "absent.yaml")[0][1]


def test_values_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    """`no` is text, a date stays text for the schema to read, 0x1F and 017 are numbers as YAML 1.2 has them."""
    read = marked.parse("{no: no, yes: on, d: 2013-01-01, t: 2013-01-01T05:00:00Z, n: , f: 1e3, h: 0x1F, o: 017}", "f")
    assert read.data == {"no": "no", "yes": "on", "d": "2013-01-01", "t": "2013-01-01T05:00:00Z", "n": None,
                         "f": 1000.0, "h": 31, "o": 17}


def test_a_flow_is_found_by_name_or_path(tmp_path: Path) -> None:
    path = flowkit.write(tmp_path)
    assert flow.find("departures", tmp_path) == path
    assert flow.find(str(path), Path("/")) == path
    with pytest.raises(UserError, match="did you mean “departures”"):
        flow.find("departure", tmp_path)
    with pytest.raises(UserError, match="no flow file"):
        flow.find("absent.yaml", tmp_path)


def test_nearest_says_what_there_is() -> None:
    assert marked.nearest("tailnumm", ["tailnum", "flight"]) == "; did you mean “tailnum”?"
    assert marked.nearest("x", ["tailnum", "flight"]) == "; there are flight, tailnum"
    assert marked.nearest("x", []) == ""
