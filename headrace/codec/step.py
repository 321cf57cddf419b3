"""From one value to the next, byte by byte: for the few collections that are too long to be walked in company.

Finding where the items of an array begin needs a walk when their sizes vary. All collections of a batch walk together,
a numpy pass for each item; but a pass costs as much for one collection as for a thousand, so one array of a million
strings would take minutes. `stepper` walks it alone, in microseconds per item. What it passes over is judged later.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.codec.types import Field, Type

Walk = Callable[[memoryview, int, int], int]
"""(bytes, position, end of the record) → the position after the value. Raises Misstep or IndexError."""


class Misstep(Exception):
    """The bytes are no such value, or reach past the end of the record."""


def stepper(type_: Type) -> Walk:
    """What passes over one value of the type."""
    match type_.kind:
        case "null":
            return lambda data, at, end: at
        case "boolean" | "float" | "double" | "fixed":
            width = {"boolean": 1, "float": 4, "double": 8}.get(type_.kind, type_.size)
            return lambda data, at, end: at + width
        case "int" | "long" | "enum":
            return _varint
        case "string" | "bytes":
            return _span
        case "record":
            return _record([stepper(f.type) for f in type_.fields])
        case "union":
            return _union([stepper(b) for b in type_.branches])
    pair = Type("record", fields=(Field("key", Type("string")), Field("value", type_.item)))
    return _blocks(stepper(type_.item if type_.kind == "array" else pair))


def walk(one: Walk, data: memoryview, at: int, end: int, count: int) -> tuple[list[int], int]:
    """Where each of `count` values begins, and the position after the last. Raises Misstep."""
    starts = []
    try:
        for _ in range(count):
            starts.append(at)
            at = one(data, at, end)
            if at > end:
                raise Misstep
    except IndexError as error:
        raise Misstep from error
    return starts, at


def _number(data: memoryview, at: int) -> tuple[int, int]:
    value, shift = data[at] & 127, 7
    while data[at] > 127:
        at += 1
        value |= (data[at] & 127) << shift
        shift += 7
        if shift > 70:
            raise Misstep
    return (value >> 1) ^ -(value & 1), at + 1


def _varint(data: memoryview, at: int, end: int) -> int:
    while data[at] > 127:
        at += 1
    return at + 1


def _span(data: memoryview, at: int, end: int) -> int:
    size, at = _number(data, at)
    if not 0 <= size <= end - at:
        raise Misstep
    return at + size


def _record(fields: list[Walk]) -> Walk:
    def step(data: memoryview, at: int, end: int) -> int:
        for one in fields:
            at = one(data, at, end)
        return at
    return step


def _union(branches: list[Walk]) -> Walk:
    def step(data: memoryview, at: int, end: int) -> int:
        branch, at = _number(data, at)
        if not 0 <= branch < len(branches):
            raise Misstep
        return branches[branch](data, at, end)
    return step


def _blocks(item: Walk) -> Walk:
    def step(data: memoryview, at: int, end: int) -> int:
        while True:
            count, at = _number(data, at)
            if not count:
                return at
            if count < 0:
                size, at = _number(data, at)
                if not 0 <= size <= end - at:
                    raise Misstep
                at += size
                continue
            for _ in range(count):
                before, at = at, item(data, at, end)
                if at > end:
                    raise Misstep
                if at == before:  # items without bytes: all the others are alike
                    break
    return step
