"""A page for people: nothing to load and nothing to run, fit to be printed; made of texts that others wrote.

Rules:
- Every text is escaped. Control characters, and characters that show text in another order than it has, are shown as U+FFFD, and the
  direction of each text is its own: what somebody wrote cannot change what stands beside it.
- The page forbids itself scripts and anything from elsewhere (Content-Security-Policy).
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_STYLE: Final = """
:root { --ink: #1b2733; --soft: #5b6b7b; --line: #d9e0e7; --head: #f3f6f9; --ok: #11704a; --warn: #8a5a00; --bad: #a3262a; }
* { box-sizing: border-box; }
body { margin: 0; background: #eef1f5; color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 62rem; margin: 2rem auto; padding: 2.5rem 3rem; background: #fff; border: 1px solid var(--line); border-radius: 8px; }
header { border-bottom: 2px solid var(--ink); padding-bottom: 1rem; margin-bottom: 1.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .4rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
p { margin: .4rem 0; }
.kicker { color: var(--soft); letter-spacing: .08em; text-transform: uppercase; font-size: .75rem; }
.purpose { font-size: 1.05rem; }
.note { color: var(--soft); }
table { border-collapse: collapse; width: 100%; margin: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; font-size: .8rem; border-bottom-color: var(--ink); white-space: nowrap; }
td { overflow-wrap: break-word; }
.diff td:nth-child(3), .diff td:nth-child(4) { overflow-wrap: anywhere; }
tbody th { font-weight: 500; color: var(--soft); width: 13rem; }
tr { break-inside: avoid; }
code { font: 12.5px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; border: 1px solid; font-size: .8rem; }
.badge { font-weight: 600; white-space: nowrap; }
.ok { color: var(--ok); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.box { margin: 1rem 0; padding: .8rem 1rem; background: var(--head); border-radius: 4px; }
.box { border: 1px solid var(--line); border-left: 4px solid var(--ink); }
.box.bad { border-left-color: var(--bad); } .box.bad, .box.bad td { color: var(--ink); }
footer { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; }
@media (max-width: 46rem) { main { margin: 0; padding: 1.2rem; border: 0; } tbody th { width: 8rem; } }
@media print {
  body { background: #fff; font-size: 11px; } main { margin: 0; padding: 0; border: 0; max-width: none; } h2 { break-after: avoid; }
}
"""


def frame(title: str, parts: Iterable[str]) -> bytes:
    """Return the whole page in UTF-8.

    Args:
        title: of the window; escaped here.
        parts: HTML, made by the functions of this module.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{as_plain(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    ).encode()


class Code(str):
    """A text that is shown as code: digests and revisions."""

    __slots__ = ()

    def __new__(cls, value: object) -> Code:
        """Return a value as such a text; of None an empty one."""
        return super().__new__(cls, "" if value is None else str(value))


def section_of(title: str, body: str, note: str = "") -> str:
    """Return a section; its body is HTML already.

    Args:
        title: its heading.
        body: HTML, made by the functions of this module.
        note: what stands below the heading.
    """
    told = f'<p class="note">{as_text(note)}</p>' if note else ""
    return f"<section><h2>{as_plain(title)}</h2>{told}{body}</section>"


def facts_of(facts: Mapping[str, Any], *, exact: bool = False) -> str:
    """Return a table of names and values.

    Args:
        facts: the values.
        exact: the names are somebody's own, so that each counts as it is, with an empty value too.
    """
    rows = "".join(
        f'<tr><th scope="row">{as_text(name if exact else name.replace("_", " "))}</th><td>{as_text(value)}</td></tr>'
        for name, value in facts.items()
        if exact or value not in (None, "", [], {})
    )
    return f"<table><tbody>{rows}</tbody></table>"


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "rows") -> str:
    """Return a table; the cells of the rows are HTML already."""
    head = "".join(f'<th scope="col">{as_text(c)}</th>' for c in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def as_code(value: Any) -> str:
    """Return a value as HTML that shows it as code; of nothing an empty text."""
    return f"<code>{as_plain(value)}</code>" if value else ""


def as_text(value: Any) -> str:
    """Return a value as HTML with a direction of its own."""
    if isinstance(value, Code):
        return as_code(value)
    plain = as_plain(value)
    return f"<bdi>{plain}</bdi>" if plain else ""


def as_plain(value: Any) -> str:
    """Return a value as escaped text, without a direction of its own: for places that have one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{as_plain(k)}: {as_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(as_plain(v) for v in value)
    shown = value if isinstance(value, str) else json.dumps(value)
    return escape("".join("\ufffd" if _is_unsafe(c) else c for c in shown), quote=True)


def _is_unsafe(character: str) -> bool:
    return character in _REORDERING or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
