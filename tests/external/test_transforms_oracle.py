"""Our transforms against Kafka Connect's own, in a JVM, over generated records: the same records out, the same refused.

What is known to differ is in `transform_cases.storable`. Set HEADRACE_CASES to multiply the number of cases, and
HEADRACE_SEED for others.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.records import Column, Records, Shape, arrow_of
from headrace.records.records import one
from headrace.transforms import TRANSFORMS, chain_of
from headrace.transforms.base import PACKAGE
from headrace.transforms.dates import format_ms
from tests.external import transform_cases as cases
from tests.external.connect_oracle import Oracle

pytestmark = pytest.mark.external
ROUNDS = round(120 * float(os.environ.get("HEADRACE_CASES", "1")))
SEED = os.environ.get("HEADRACE_SEED", "1")
Config = dict[str, str]
DONE: dict[str, int] = {}


@pytest.fixture(scope="module")
def java(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    with Oracle.started() as oracle:
        yield oracle
    told = f"{sum(DONE.values())} cases: " + ", ".join(f"{name} {n}" for name, n in sorted(DONE.items()))
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + told)


# Configs


def names(rng: random.Random, given: Records, key: bool) -> list[str]:
    """Names of fields of these records, and some that they do not have."""
    column = given.key if key else given.value
    has = [each.name for each in column.values.type] if pa.types.is_struct(column.values.type) else []
    return rng.sample(has, len(has)) + rng.sample(cases.NAMES, 2)


def pick(rng: random.Random, known: list[str], most: int = 3) -> str:
    return ",".join(dict.fromkeys(rng.choice(known[:4]) for _ in range(rng.randrange(1, most + 1))))


def with_null(rng: random.Random, config: Config) -> Config:
    if rng.random() < 0.4:
        config["replace.null.with.default"] = rng.choice(["false", "true", "FALSE"])
    return config


TYPES = ("int8", "int16", "int32", "int64", "float32", "float64", "boolean", "string")
FORMATS = ("yyyy-MM-dd", "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", "yyyyMMdd", "yy-MM-dd", "d MMM yyyy hh:mm a", "HH:mm",
           "yyyy-MM-dd HH:mm:ssZ", "yyyy-MM-dd HH:mm:ssX", "yyyy-M-d", "EEEE, d MMMM yyyy G", "''yyyy''", "yyyyDDD",
           "h 'o''clock' a", "k K S", "y-M-d", "MMM dd yy")


def cast(rng: random.Random, known: list[str]) -> Config:
    if rng.random() < 0.2:
        return with_null(rng, {"spec": rng.choice(TYPES)})
    return with_null(rng, {"spec": ",".join(f"{name}:{rng.choice(TYPES)}" for name in pick(rng, known).split(","))})


def extract(rng: random.Random, known: list[str]) -> Config:
    if rng.random() < 0.4:
        path = ".".join(rng.choice([name, f"`{name}`"])
                        for name in pick(rng, [*known[:2], *cases.NAMES[:2]]).split(","))
        return with_null(rng, {"field": path, "field.syntax.version": rng.choice(["V2", "v2"])})
    return with_null(rng, {"field": known[0]})


def header_from(rng: random.Random, known: list[str]) -> Config:
    fields = pick(rng, known)
    return with_null(rng, {"fields": fields, "headers": ",".join("hij"[at] for at, _ in enumerate(fields.split(","))),
                           "operation": rng.choice(["move", "copy"])})


def insert(rng: random.Random, known: list[str]) -> Config:
    fields = ("topic.field", "partition.field", "offset.field", "timestamp.field", "static.field")
    config = {each: rng.choice(["new", "other", "third", known[-1]]) + rng.choice(["", "?", "!"])
              for each in rng.sample(fields, rng.randrange(1, 4)) if each != "offset.field" or rng.random() < 0.5}
    config = config or {"topic.field": "topic"}
    return with_null(rng, {**config, **({"static.value": "word"} if "static.field" in config else {})})


def mask(rng: random.Random, known: list[str]) -> Config:
    config = {"fields": pick(rng, known)}
    if rng.random() < 0.4:
        config["replacement"] = rng.choice(["xxx", "7", "-1.5", "300", "1e3", "99999999999999999999", "0.25"])
    return with_null(rng, config)


def replace(rng: random.Random, known: list[str]) -> Config:
    config: Config = {}
    if rng.random() < 0.5:
        config["exclude"] = pick(rng, known)
    if rng.random() < 0.4:
        config["include"] = pick(rng, known, 4)
    if rng.random() < 0.7:
        config["renames"] = ",".join(f"{name}:{rng.choice(['n1', 'n2', known[0], known[-1]])}"
                                     for name in pick(rng, known).split(","))
    return with_null(rng, config)


def metadata(rng: random.Random, known: list[str]) -> Config:
    config = rng.choice([{"schema.name": "org.acme.N"}, {"schema.version": "7"},
                         {"schema.name": "N", "schema.version": "-1"}])
    return with_null(rng, dict(config))


def timestamp(rng: random.Random, known: list[str]) -> Config:
    config = {"target.type": rng.choice(["string", "unix", "Date", "Time", "Timestamp"])}
    if rng.random() < 0.8:
        config["field"] = known[0]
    if config["target.type"] == "string" or rng.random() < 0.8:
        config["format"] = rng.choice(FORMATS)
    if rng.random() < 0.5:
        config["unix.precision"] = rng.choice(["seconds", "milliseconds", "microseconds", "nanoseconds"])
    return with_null(rng, config)


LITERALS = ("1", "true", " false", "null", "2.5", "-129", "40000", "3000000000", "99999999999999999999", "1e40", "[]",
            "[1, 2]", "[1, 300, 2.5]", '["a", "b"]', '{"a": 1, "b": 70000}', "{}", '{"a": null}', "[1, null]",
            "2024-02-29", "2024-02-29T13:14:15.678Z", "13:14:15.678Z", "word", "a,b", "1,2", "true}", "[1,", "{a:1}",
            '"quoted"', "12:30", "+5", "-", "0.1", "1.0", "[[1],[2]]", "1 2", "[1 2]", "\\[1]", '["2024-02-29"]')
REGEXES = ((r"(.*)", "x-$1"), (r"db\.(\w+)\.(?<table>[a-z&&[^xyz]]+)", "${table}_$1"), (r"t", "u"), (r"a|.*", "$0z"),
           (r"(?i)DB\.([^.]*+)\.(.*)", "$2.$1"), (r"\p{Lower}-\w_c\.\d{4}", "\\$1"), (r"[\w&&[^\d]]+", "none"),
           (r"(a)|(t)", "<$1$2>"), (r"\Qa-b_c.\E(\d)\d*", "$11"), (r"(?<x>\w+)(?:\.\k<x>)?", "${x}"))
CONFIGS: Mapping[str, Callable[[random.Random, list[str]], Config]] = {
    "Cast": cast, "ExtractField": extract, "HeaderFrom": header_from, "InsertField": insert, "MaskField": mask,
    "ReplaceField": replace, "SetSchemaMetadata": metadata, "TimestampConverter": timestamp,
    "DropHeaders": lambda rng, known: {"headers": rng.choice(["h", "h,i", "z"])}, "Filter": lambda rng, known: {},
    "Flatten": lambda rng, known: {} if rng.random() < 0.5 else {"delimiter": rng.choice(["_", "::", "a"])},
    "HoistField": lambda rng, known: {"field": rng.choice(["line", "a", ""])},
    "InsertHeader": lambda rng, known: {"header": "h", "value.literal": rng.choice(LITERALS)},
    "RegexRouter": lambda rng, known: dict(zip(("regex", "replacement"), rng.choice(REGEXES), strict=True)),
    "TimestampRouter": lambda rng, known: {} if rng.random() < 0.3 else {
        "topic.format": "${timestamp}_${topic}", "timestamp.format": rng.choice(FORMATS)},
    "ValueToKey": lambda rng, known: with_null(rng, {"fields": pick(rng, known)})}


def configured(name: str, config: Config) -> Config:
    return {"transforms": "t", **{f"transforms.t.{key}": each for key, each in {"type": name, **config}.items()}}


# The tests


def ours(config: Config, given: list[Records]) -> dict[int, Any]:
    """Place → what becomes of the record: a record, "refused: why"; nothing where it was dropped."""
    chain, problems = chain_of(config)
    assert not problems, problems
    made, failures = chain.apply(given)
    found: dict[int, Any] = {each.index: f"refused: {each.reason}" for each in failures}
    for part in made:
        for place, record in zip(part.index.tolist(), cases.requests(part), strict=True):
            assert place not in found, "a record came out twice"
            found[place] = record
    for each in made:
        for column in (each.key, each.value):
            column.values.validate(full=True)
    return found


def check(config: Config, sent: list[Any], theirs: list[Any], mine: Mapping[int, Any]) -> None:
    for at, answer in enumerate(theirs):
        got = mine.get(at)
        about = f"{config}\nsent {sent[at]}\nJava {answer}\nours {got}"
        if answer is None:
            assert got is None, about
        elif "error" in answer:
            assert isinstance(got, str), about
        elif isinstance(got, str):
            assert not storable(answer), about
        else:
            assert got is not None, about
            assert cases.comparable(got) == cases.comparable(answer), about


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_transform(java: Oracle, name: str) -> None:
    short = name.removeprefix(PACKAGE).partition("$")[0]
    rng = random.Random(f"{SEED} {name}")
    asked: list[tuple[Config, Records]] = []
    for _ in range(ROUNDS):
        given = cases.records(rng, rng.choice([1, 4, 7]))
        config = CONFIGS[short](rng, names(rng, given, name.endswith("$Key")))
        asked.append((config, given))
    sent = [cases.requests(given) for _, given in asked]
    answers = java.ask([{"op": "transform", "class": name, "config": config, "records": records}
                        for (config, _), records in zip(asked, sent, strict=True)])
    wrong = []
    for (config, given), records, answer in zip(asked, sent, answers, strict=True):
        try:
            assert "records" in answer, f"Java refuses {config}: {answer}"
            check(config, records, answer["records"], ours(configured(name, config), [given]))
        except AssertionError as error:
            wrong.append(str(error))
        except Exception as error:
            wrong.append(f"{type(error).__name__} {error}\n{config}\n{records[0]}")
        DONE[short] = DONE.get(short, 0) + len(records)
    assert not wrong, f"{len(wrong)} of {len(asked)} differ\n\n" + "\n\n".join(wrong[:6])


def compared(java: Oracle, what: str, config: Config, values: pa.Array, *, many: int = 400) -> None:
    """A transform of schemaless values, or of those of a shape, each a record of its own."""
    name = config["type"]
    keys = {key: each for key, each in config.items() if key != "type"}
    given = one("t", Column(values), timestamps_ms=np.zeros(len(values), np.int64))
    sent = cases.requests(given)
    answers = java.ask([{"op": "transform", "class": PACKAGE + name, "config": keys, "records": sent[at:at + many]}
                        for at in range(0, len(sent), many)])
    theirs = [each for answer in answers for each in answer["records"]]
    mine = ours(configured(name, keys), [given])
    wrong = []
    for at, answer in enumerate(theirs):
        try:
            check(config, sent[at:at + 1], [answer], {0: mine[at]} if at in mine else {})
        except AssertionError:
            got, value = mine.get(at), values[at].as_py()
            wrong.append(f"{config} {value!r}: Java {answer.get('error') or answer['value']['value']}, ours "
                         f"{got if not isinstance(got, dict) else got['value']['value']}")
    DONE[what] = DONE.get(what, 0) + len(values)
    assert not wrong, f"{len(wrong)} of {len(values)} differ\n" + "\n".join(wrong[:20])


def instants(rng: random.Random, n: int, pattern: str) -> list[int]:
    """Instants of five thousand years and some; those of week years are AD."""
    made = [rng.choice([rng.choice(cases.INSTANTS), rng.randrange(-3 * 10**12, 5 * 10**12),
                        rng.randrange(-10**14, 10**15), -12_219_292_800_000 + rng.randrange(-3 * 10**9, 3 * 10**9)])
            for _ in range(n)]
    return [max(each, -62_000_000_000_000) for each in made] if "Y" in pattern else made


WRITTEN = (*FORMATS, "G GGGG y yy yyy yyyyy", "M MM MMM MMMM L LL LLL LLLL", "d dd ddd D DDD F u W w ww Y YY YYYY",
           "E EEE EEEE a aaaa", "H HH k kk K KK h hh m mm s ss S SS SSS SSSS", "z zzzz Z ZZZ X XX XXX",
           "'a''b' #-/é\u2028",
           "YYYY-'W'ww-u", "yyyy'year'")


def test_dates_written(java: Oracle) -> None:
    rng = random.Random(f"{SEED} written")
    for pattern in WRITTEN:
        config = {"type": "TimestampConverter$Value", "target.type": "string", "format": pattern}
        compared(java, "dates written", config, pa.array(instants(rng, 25 * ROUNDS // 10, pattern)))


READ = (*(each for each in WRITTEN if not set(each.replace("'W'", "").replace("'year'", "")) & set("wWFYu")
          and not each.startswith(("E EEE", "G GGGG"))),
        "yyyyMMddHHmmssSSS", "yyMMdd", "hhmma", "yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "yyyy-MM-dd'T'HH:mm:ssXX", "MMMd,yyyy",
        "EEE MMM dd HH:mm:ss z yyyy", "y D", "dd.MM.yy h:mm a", "ddyyyy", "yyyy MM dd  HH", "HH:mm:ss.S", "'at' H",
        "yyyy G", "GGGG yyy", "Hh a", "D d y")


def spoilt(rng: random.Random, text: str) -> str:
    """A text with a small mistake, or a peculiarity."""
    if not text or rng.random() < 0.5:
        return text
    at = rng.randrange(len(text))
    return rng.choice([text[:at] + text[at + 1:], text[:at] + rng.choice("0123456789 -+:ZxT") + text[at:], text + " x",
                       " " + text, text.upper(), text.lower(), text[:at], text.replace(" ", "  "),
                       text.replace("0", ""),
                       text[:at] + rng.choice("0123456789") + text[at + 1:], text.replace("UTC", "GMT+1:30"),
                       text.replace("+0000", rng.choice(["-0830", "+2359", "+24", "+1"])),
                       text.replace("Z", rng.choice(["+05", "-0730", "+05:45", "+5"]))])


def test_dates_read(java: Oracle) -> None:
    rng = random.Random(f"{SEED} read")
    for pattern in READ:
        written = format_ms(pattern, pa.array(instants(rng, 25 * ROUNDS // 10, pattern))).to_pylist()
        config = {"type": "TimestampConverter$Value", "target.type": "Timestamp", "format": pattern}
        compared(java, "dates read", config, pa.array([spoilt(rng, each) for each in written]))


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_floats_as_text(java: Oracle, kind: str) -> None:
    rng = random.Random(f"{SEED} {kind}")
    wide = np.random.default_rng(rng.randrange(2**32)).integers(0, 2**32 if kind == "float32" else 2**63, 20 * ROUNDS,
                                                              np.uint64)
    odd = (wide.astype(np.uint32).view(np.float32) if kind == "float32" else wide.view(np.float64)).tolist()
    shape = Shape(kind)
    some = [each for _ in range(10 * ROUNDS) for each in (
        cases.value(rng, shape), float(f"{rng.randrange(1, 999)}e{rng.randrange(-9, 9)}"))]
    values = pa.array([*odd, *some], pa.float64()).cast(arrow_of(shape))
    compared(java, "floats as text", {"type": "Cast$Value", "spec": "string"}, values)


def number_text(rng: random.Random) -> str:
    text = rng.choice([str(rng.randrange(-200, 200)), str(rng.randrange(-2**64, 2**64)), repr(rng.uniform(-1e9, 1e9)),
                       repr(rng.uniform(-1, 1) * 10.0 ** rng.randrange(-60, 60)), rng.choice(cases.TEXTS),
                       f"{rng.randrange(10**20)}.{rng.randrange(10**20)}",
                       f"{rng.randrange(99)}e{rng.randrange(-500, 500)}", float.hex(rng.uniform(-9, 9))])
    return spoilt(rng, text)


@pytest.mark.parametrize("target", TYPES)
def test_text_as_numbers(java: Oracle, target: str) -> None:
    rng = random.Random(f"{SEED} {target}")
    compared(java, "text as numbers", {"type": "Cast$Value", "spec": target},
             pa.array([number_text(rng) for _ in range(5 * ROUNDS)]))


@pytest.mark.parametrize("target", TYPES)
@pytest.mark.parametrize("source", ["int8", "int16", "int32", "int64", "float32", "float64", "boolean"])
def test_numbers_as_numbers(java: Oracle, source: str, target: str) -> None:
    rng = random.Random(f"{SEED} {source} {target}")
    shape = Shape(source, optional=True)
    compared(java, "numbers as numbers", {"type": "Cast$Value", "spec": target},
             pa.array([cases.value(rng, shape) for _ in range(ROUNDS)], arrow_of(shape)))


def literal(rng: random.Random, depth: int = 0) -> str:
    space = rng.choice(["", "", " "])
    way = rng.random() + depth * 0.15
    if way < 0.2:
        return "[" + space + f",{space}".join(literal(rng, depth + 1) for _ in range(rng.randrange(4))) + space + "]"
    if way < 0.4:
        return "{" + space + ",".join(f"{rng.choice(['1', QUOTED, literal(rng, 2)])}{space}:{literal(rng, depth + 1)}"
                                      for _ in range(rng.randrange(3))) + "}"
    return rng.choice(["1", "-3", "300", "70000", "5000000000", "2.5", "1e20", "true", "false", "null", QUOTED, '"b"',
                       "word", "2024-02-29", "13:14:15.678Z", "2024-02-29T13:14:15.678Z", '"2024-02-29"',
                       "99999999999999999999",
                       "0", "1.0", "+1", "0.1", "1e-3", "a b", "\\,", ""])


QUOTED = '"a"'


def test_literals(java: Oracle) -> None:
    """What InsertHeader makes of a text, over generated ones, whole and spoilt."""
    rng = random.Random(f"{SEED} literals")
    texts = sorted({rng.choice([literal(rng), spoilt(rng, literal(rng))]).strip() for _ in range(20 * ROUNDS)})
    record = {"topic": "t", "value": {"schema": None, "value": "x"}}
    answers = java.ask([{"op": "transform", "class": PACKAGE + "InsertHeader", "records": [record],
                         "config": {"header": "h", "value.literal": text}} for text in texts])
    wrong = []
    given = one("t", Column(pa.array(["x"])))
    for text, answer in zip(texts, answers, strict=True):
        config = configured("InsertHeader", {"header": "h", "value.literal": text})
        chain, problems = chain_of(config)
        theirs = answer.get("error") or [answer["records"][0]["headers"]]
        mine: Any = problems or [cases.requests(chain.apply([given])[0][0])[0]["headers"]]
        if problems or "error" in answer:
            unheld = ("stands among", "beyond the numbers", "no time of day")  # what Arrow cannot hold
            same = bool(problems) == ("error" in answer) or any(each in str(problems) for each in unheld)
        else:
            theirs, mine = ([cases.comparable({**answer["records"][0], "headers": each[0]})["headers"]]
                            for each in (theirs, mine))
            same = theirs == mine
        if not same:
            wrong.append(f"{text!r}: Java {theirs}, ours {mine}")
    DONE["literals"] = len(texts)
    assert not wrong, f"{len(wrong)} of {len(texts)} differ\n" + "\n".join(wrong[:20])


PREDICATES = ({"type": "TopicNameMatches", "pattern": r"db\..*|[a-b\-]+_c\.\d++"}, {"type": "RecordIsTombstone"},
              {"type": "HasHeaderKey", "name": "h"})


def test_chains(java: Oracle) -> None:
    """Several transforms, some for the records of a predicate or for all others: each record alone in Java, all at
    once in ours."""
    rng = random.Random(f"{SEED} chains")
    wrong = []
    for _ in range(2 * ROUNDS):
        given = [part.but(index=part.index + 10 * at) for at, part in enumerate(
            cases.records(rng, rng.choice([1, 3, 6])) for _ in range(rng.choice([1, 2])))]
        config: Config = {f"predicates.p.{key}": each for key, each in rng.choice(PREDICATES).items()}
        config["predicates"] = "p"
        aliases = "abc"[:rng.choice([2, 3])]
        config["transforms"] = ",".join(aliases)
        for alias in aliases:
            name = rng.choice(sorted(TRANSFORMS))
            short = name.removeprefix(PACKAGE).partition("$")[0]
            keys = CONFIGS[short](rng, names(rng, given[0], name.endswith("$Key")))
            if short == "InsertHeader":
                keys["value.literal"] = "[1, 2]"  # what has elements of no type cannot be sent back to the oracle
            keys.pop("renames", None)  # two fields of one name: Java's tables between transforms have other sizes
            if rng.random() < 0.5 or short == "Filter":
                keys |= {"predicate": "p", **({"negate": rng.choice(["true", "false"])} if rng.random() < 0.5 else {})}
            config |= {f"transforms.{alias}.{key}": each for key, each in {"type": name, **keys}.items()}
        sent = {int(place): record for part in given for place, record in
                zip(part.index, cases.requests(part), strict=True)}
        theirs = in_java(java, config, aliases, sent)
        mine = ours(config, given)
        order = sorted(sent)
        try:
            check(config, [sent[at] for at in order], [theirs[at] for at in order],
                  {order.index(at): each for at, each in mine.items()})
        except AssertionError as error:
            wrong.append(str(error))
        DONE["chains"] = DONE.get("chains", 0) + len(sent)
    assert not wrong, f"{len(wrong)} of {2 * ROUNDS} differ\n\n" + "\n\n".join(wrong[:6])


def in_java(java: Oracle, config: Config, aliases: str, sent: Mapping[int, Any]) -> dict[int, Any]:
    """What Kafka Connect's chain does: record by record, stage by stage."""
    held = dict(sent)
    asked = {key.removeprefix("predicates.p."): each for key, each in config.items() if key.startswith("predicates.p.")}
    for alias in aliases:
        prefix = f"transforms.{alias}."
        keys = {key.removeprefix(prefix): each for key, each in config.items() if key.startswith(prefix)}
        name, negate = keys.pop("type"), keys.pop("negate", "false") == "true"
        going = [at for at, record in held.items() if record is not None and "error" not in record and storable(record)]
        if not going:
            break
        if keys.pop("predicate", None):
            answers = java.ask({"op": "predicate", "class": f"{PACKAGE}predicates.{asked['type']}", "config": {
                key: each for key, each in asked.items() if key != "type"}, "records": [held[at] for at in going]})
            going = [at for at, yes in zip(going, answers["records"], strict=True) if yes != negate]
        if going:
            answers = java.ask({"op": "transform", "class": name, "config": keys,
                                "records": [held[at] for at in going]})
            for at, answer in zip(going, answers["records"], strict=True):
                kept = {key: sent[at][key] for key in ("kind", "offset") if key in sent[at]}
                held[at] = answer and {**answer, **kept}
    return held


def storable(record: Any) -> bool:
    return all(record[side]["value"] is None or cases.storable(record[side]["value"], record[side]["schema"])
               for side in ("key", "value"))


WRONG: tuple[tuple[str, Config], ...] = (
    ("Cast$Value", {"spec": ""}), ("Cast$Value", {}), ("Cast$Value", {"spec": "a:int33"}),
    ("Cast$Value", {"spec": "a:map"}),
    ("Cast$Value", {"spec": "a:b:int8"}), ("Cast$Value", {"spec": "int8,string"}), ("Cast$Value", {"spec": "a:"}),
    ("Cast$Value", {"spec": "a:int8, b : STRING"}), ("Cast$Value", {"spec": "int8:"}),
    ("Cast$Value", {"spec": "a:int8", "replace.null.with.default": "maybe"}),
    ("DropHeaders", {"headers": ""}), ("DropHeaders", {"headers": "a,a"}), ("DropHeaders", {"headers": "a,,b"}),
    ("DropHeaders", {}), ("ExtractField$Key", {}), ("ExtractField$Key", {"field": "a", "field.syntax.version": "V3"}),
    ("ExtractField$Key", {"field": "`a", "field.syntax.version": "V2"}), ("ExtractField$Key", {"field": "`a"}),
    ("ExtractField$Key", {"field": "`a\\`", "field.syntax.version": "v2"}),
    ("HeaderFrom$Value", {"fields": "a,b", "headers": "h", "operation": "move"}),
    ("HeaderFrom$Value", {"fields": "a", "headers": "h", "operation": "MOVE"}),
    ("HeaderFrom$Value", {"fields": "a", "headers": "h"}),
    ("HeaderFrom$Value", {"fields": "", "headers": "", "operation": "copy"}),
    ("HoistField$Value", {}), ("InsertField$Value", {}), ("InsertField$Value", {"static.field": "a"}),
    ("InsertHeader", {"header": "h"}), ("InsertHeader", {"value.literal": "h"}), ("MaskField$Value", {"fields": ""}),
    ("MaskField$Value", {"fields": "a", "replacement": ""}), ("MaskField$Value", {"fields": "a,a"}),
    ("MaskField$Value", {"fields": "a", "replacement": " "}), ("RegexRouter", {"regex": "(", "replacement": "x"}),
    ("RegexRouter", {"regex": "a", "replacement": ""}), ("RegexRouter", {"regex": "[a", "replacement": "x"}),
    ("RegexRouter", {"regex": "a{", "replacement": "x"}), ("RegexRouter", {"regex": "*a", "replacement": "x"}),
    ("RegexRouter", {"regex": "(?<1a>x)", "replacement": "x"}),
    ("RegexRouter", {"regex": "a]}", "replacement": "x"}), ("RegexRouter", {"regex": "[]a]", "replacement": "x"}),
    ("RegexRouter", {"regex": "a)", "replacement": "x"}), ("RegexRouter", {"regex": "\\y", "replacement": "x"}),
    ("ReplaceField$Value", {"renames": "a"}), ("ReplaceField$Value", {"renames": "a:b:c"}), ("ReplaceField$Value", {}),
    ("ReplaceField$Value", {"renames": "a:"}), ("ReplaceField$Value", {"renames": ":b"}), ("ReplaceField$Value", {
        "exclude": "a,a"}), ("SetSchemaMetadata$Value", {}), ("SetSchemaMetadata$Value", {"schema.version": "1.5"}),
    ("SetSchemaMetadata$Value", {"schema.version": "2147483648"}),
    ("SetSchemaMetadata$Value", {"schema.version": "+5"}),
    ("TimestampConverter$Value", {}), ("TimestampConverter$Value", {"target.type": "date"}),
    ("TimestampConverter$Value", {"target.type": "string"}), ("TimestampConverter$Value", {"target.type": "string",
                                                                                          "format": "yyyyT"}),
    ("TimestampConverter$Value", {"target.type": "unix", "unix.precision": "ms"}),
    ("TimestampConverter$Value", {"target.type": "string", "format": "yyyy'"}),
    ("TimestampConverter$Value", {"target.type": "string", "format": "XXXX"}),
    ("TimestampConverter$Value", {"target.type": "unix", "format": "'"}), ("ValueToKey", {"fields": ""}),
    ("ValueToKey", {}), ("ValueToKey", {"fields": "a,a"}), ("Flatten$Key", {"delimiter": ""}))


@pytest.mark.parametrize(("name", "config"), WRONG)
def test_configs(java: Oracle, name: str, config: Config) -> None:
    """What Java's class does not take, we do not take either, and the other way round."""
    answer = java.ask({"op": "transform", "class": PACKAGE + name, "config": config, "records": []})
    _, problems = chain_of(configured(name, config))
    assert bool(problems) == ("error" in answer), (problems, answer)
    assert all(key.startswith("transforms.t") and text.startswith(key) for key, text in problems), problems
    DONE["configs"] = DONE.get("configs", 0) + 1
