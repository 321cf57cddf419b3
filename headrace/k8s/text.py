"""Objects as YAML, the same bytes for the same objects."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any


def dump(objects: Iterable[Mapping[str, Any]]) -> str:
    """The objects as one stream of YAML documents: keys in their order, long texts as blocks, no line broken."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter
    from ruamel.yaml.scalarstring import LiteralScalarString, SingleQuotedScalarString

    def text(representer: Any, value: str) -> Any:
        lines = value.split("\n")
        if len(lines) > 1 and not any(line != line.rstrip() or "\t" in line for line in lines):
            return representer.represent_literal_scalarstring(LiteralScalarString(value))
        if value[:1] in "0123456789+-.=<~" or value.lower() in ("yes", "no", "on", "off", "y", "n"):
            # Kubernetes' parser is of YAML 1.1, where these are no text, and where 1:30 and 017 are numbers.
            return representer.represent_single_quoted_scalarstring(SingleQuotedScalarString(value))
        return representer.represent_str(value)

    class Representer(RoundTripRepresenter):
        """Of plain Python values; no aliases, since they read badly."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    Representer.add_representer(str, text)
    yaml = YAML()
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.width = 1 << 20
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.explicit_start = True
    yaml.dump_all([dict(each) for each in objects], out)
    return out.getvalue()
