"""Every error headrace raises.

    HeadraceError
    ├── UserError             what was written is wrong: a flow, a schema, a suite, an option   → exit 2
    │   ├── ConfigError       findings with file and line, all of them at once                   → exit 1
    │   ├── SchemaError       an Avro schema that cannot be read, held in Arrow, or evolved
    │   ├── ExpressionError   an SQL scalar expression that is refused or does not type
    │   └── SuiteError        a Great Expectations suite that cannot be read or compiled
    ├── EnvironmentFault     what it runs on is wrong: broker, registry, disk, a missing extra  → exit 3
    │   ├── BrokerError       Kafka cannot be reached, or refuses
    │   ├── RegistryError     the schema registry cannot be reached, or refuses
    │   ├── StackError        a part of the embedded stack does not start, or died
    │   ├── MissingExtra      an optional dependency is not installed
    │   └── Retriable         worth another try after `retry_after_s`
    │       └── Backpressure  a sink asks for a pause
    └── Fenced                another worker took this slot's transactional id: this one must end → exit 4

A bad *record* is none of these: it is a value, on the `failure` relationship or in the quarantine, with its reasons.
A bad *program* is an `AssertionError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class HeadraceError(Exception):
    """Base of all. `exit_code` is what the command line ends with."""

    exit_code = 2

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what


class UserError(HeadraceError):
    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing lint found: where it is, what it is, what to do. `line` counts from 1; 0 is the whole file."""

    file: str
    line: int
    message: str
    severity: str = "error"  # error | warning | info

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.severity}: {self.message}"


class ConfigError(UserError):
    """A file that does not lint; `findings` has every reason."""

    exit_code = 1

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(str(f) for f in findings))
        self.findings = tuple(findings)


class SchemaError(UserError):
    pass


class ExpressionError(UserError):
    pass


class SuiteError(UserError):
    pass


class EnvironmentFault(HeadraceError):
    exit_code = 3


class BrokerError(EnvironmentFault):
    pass


class RegistryError(EnvironmentFault):
    pass


class StackError(EnvironmentFault):
    pass


class MissingExtra(EnvironmentFault):
    def __init__(self, extra: str, what_for: str) -> None:
        super().__init__(f"{what_for} needs the extra “{extra}”, which is not installed",
                         hint=f"pip install 'headrace[{extra}]'")


class Retriable(EnvironmentFault):
    def __init__(self, what: str, *, retry_after_s: float, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.retry_after_s = retry_after_s


class Backpressure(Retriable):
    pass


class Fenced(HeadraceError):
    exit_code = 4
