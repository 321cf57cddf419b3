"""What the HTML pages are made of: a document that loads nothing from elsewhere, and text that stays text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from headrace.contractctl.judged import shown_text

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --line: #d9dee5; --page: #fff; --bad: #c81e1e;
  --warn: #b45309; --good: #15803d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #333c48; --page: #12161c;
  --bad: #ff6b6b; --warn: #f0a04b; --good: #4ade80; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 1080px;
  margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .4rem; } p { margin: .3rem 0 .8rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .2rem; } .soft, small { color: var(--soft); }
code { font-size: .92em; unicode-bidi: isolate; overflow-wrap: anywhere; white-space: pre-wrap; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; } small { display: block; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85em; } summary { cursor: pointer; }
"""


def document(title: str, body: str, *, style: str = "", made_by: str = "") -> str:
    """A page: `title` as text, `body` and `style` as they are. `made_by` is its generator, where that matters."""
    maker = f'<meta name="generator" content="{text(made_by)}">' if made_by else ""
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">'
            f"{maker}<title>{text(title)}</title><style>{STYLE}{style}</style></head><body>{body}</body></html>\n")


def table(names: Iterable[str], rows: Iterable[str]) -> str:
    """`rows` are made already: <tr>…</tr>."""
    return f"<table><tr>{''.join(f'<th>{text(name)}</th>' for name in names)}</tr>{''.join(rows)}</table>"


def code(value: str, chars_max: int = 200) -> str:
    return f"<code>{text(value, chars_max)}</code>"


def text(value: str, chars_max: int = 1_000) -> str:
    """Text as HTML shows it literally."""
    return escape(shown_text(value, chars_max))


def as_json(value: Any, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str, **how)
