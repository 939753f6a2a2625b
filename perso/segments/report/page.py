"""How the segment report is written as HTML: escaped text, tables, pictures, numbers.

Decides the form of a page that needs nothing but itself: no script, no address, pictures inline.
It knows nothing of segments.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

HIDDEN: Final = "hidden"

STYLE: Final = """
:root { color-scheme: light; --ink: #1f2933; --muted: #5b6774; --line: #e1e6ea; --wash: #f6f8fa;
  --accent: #08519c; --warn: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main, header, footer { max-width: 1000px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 22px; line-height: 1.3; margin: 52px 0 6px; padding-top: 18px;
  border-top: 1px solid var(--line); }
h3 { font-size: 16.5px; margin: 28px 0 6px; }
p { margin: 8px 0; max-width: 46em; }
.when, figcaption, .note, footer { color: var(--muted); font-size: 14px; }
.lead { font-size: 19px; line-height: 1.5; margin: 16px 0; }
nav { margin: 16px 0 0; font-size: 14px; }
nav a { color: var(--accent); margin-right: 14px; white-space: nowrap; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0 8px; }
.tile { flex: 1 1 200px; background: var(--wash); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; white-space: nowrap; font-size: 23px; line-height: 1.25; }
.tile span { color: var(--muted); font-size: 13.5px; }
.alerts { list-style: none; padding: 0; margin: 12px 0; }
.alerts li { border-left: 4px solid var(--warn); background: #fdf3f2; padding: 8px 14px;
  margin: 8px 0; border-radius: 0 6px 6px 0; }
.calm { border-left: 4px solid #1b7837; background: #f1f8f2; padding: 8px 14px;
  border-radius: 0 6px 6px 0; max-width: none; }
figure { margin: 16px 0 8px; }
figure img { width: 100%; height: auto; display: block; }
figcaption, caption { max-width: 52em; }
.wide { overflow-x: auto; margin: 14px 0 4px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: 14px; padding: 0 0 8px; }
th, td { padding: 6px 9px; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--muted); font-weight: 600; font-size: 13px; vertical-align: bottom;
  border-bottom: 2px solid var(--line); }
tbody th { font-weight: 600; }
.n { text-align: right; }
td.n { white-space: nowrap; }
tbody th { min-width: 190px; }
.turned tbody th { min-width: 0; white-space: nowrap; }
.hid { color: var(--muted); }
small { display: block; color: var(--muted); font-weight: 400; font-size: 12.5px;
  line-height: 1.35; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin-right: 7px;
  border: 1px solid rgba(0,0,0,.18); }
.number { display: inline-block; min-width: 22px; height: 22px; line-height: 18px;
  margin-right: 7px;
  border: 2px solid; border-radius: 11px; text-align: center; font-size: 12.5px; }
.heat { font-size: 13px; }
.heat td, .heat th { border: 2px solid #fff; padding: 5px 6px; vertical-align: middle; }
.heat td { text-align: center; min-width: 44px; }
.heat thead th { text-align: center; vertical-align: bottom; }
.turned thead th { vertical-align: bottom; }
.turned thead th:not(:first-child) span { writing-mode: vertical-rl; transform: rotate(180deg);
  white-space: nowrap; line-height: 1.1; text-align: left; }
.turned th, .turned td { padding-left: 6px; padding-right: 6px; }
.heat.turned thead th { text-align: center; }
.heat:not(.turned) thead th:not(:first-child) { width: 88px; }
.heat thead th:first-child { text-align: left; }
.heat tbody th { min-width: 0; width: 1%; white-space: nowrap; }
.pair { display: flex; gap: 28px; flex-wrap: wrap; }
.pair > div { flex: 1 1 400px; }
.stay { box-shadow: inset 0 0 0 2px #6c737a; }
.key { columns: 2; padding-left: 0; list-style: none; font-size: 14.5px; }
.key li { margin: 4px 0; break-inside: avoid; }
.moves { padding-left: 20px; }
.moves li { margin: 3px 0; }
.best { background: #eaf2fa; }
footer { margin: 56px auto 48px; padding-top: 16px; border-top: 1px solid var(--line); }
@page { margin: 14mm; }
@media print { nav { display: none; } main, header, footer { max-width: none; padding: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 12px; } h2 { margin-top: 24px; } h2, h3 { break-after: avoid; }
  .lead { font-size: 15px; } .when, figcaption, caption, .note, footer { font-size: 11px; }
  figure, .tile, table { break-inside: avoid; } .tile { flex-basis: 120px; }
  .tile b { font-size: 17px; } .tile span { font-size: 11px; } .wide { overflow: visible; }
  table, .heat { font-size: 10.5px; } thead th { font-size: 10px; } small { font-size: 9.5px; }
  th, td { padding: 3px 5px; } tbody th { min-width: 130px; } .pair > div { flex-basis: 260px; }
  .heat td { min-width: 30px; padding: 4px 2px; } }
"""

# Shades from white to blue; from 0.69 on white is easier to read on them than black (4.4 to 1).
_LIGHT: Final = (247, 250, 253)
_DARK: Final = (8, 69, 130)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table; its text is escaped when it is written."""

    text: str
    """What it says."""
    small: str = ""
    """A second line in small type."""
    is_number: bool = False
    """Set to the right."""
    swatch: str = ""
    """A colour shown before the text."""
    number: str = ""
    """A number in a circle of the swatch's colour, in place of the swatch."""
    heat: float | None = None
    """Shade of the background, 0 to 1."""
    css: str = ""
    """Further class."""

    def html(self, tag: str = "td") -> str:
        """The cell as HTML."""
        classes = " ".join(
            name
            for name, is_on in (
                ("n", self.is_number),
                ("hid", self.text == HIDDEN),
                (self.css, bool(self.css)),
            )
            if is_on
        )
        attributes = f' class="{classes}"' if classes else ""
        if self.heat is not None:
            attributes += f' style="{_shade(self.heat)}"'
        if tag == "th":
            attributes += ' scope="row"'
        mark = ""
        if self.number:
            mark = f'<span class="number" style="border-color:{self.swatch}">{self.number}</span>'
        elif self.swatch:
            mark = f'<span class="swatch" style="background:{self.swatch}"></span>'
        small = f"<small>{escape(self.small)}</small>" if self.small else ""
        return f"<{tag}{attributes}>{mark}{escape(self.text)}{small}</{tag}>"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose rows begin with a name."""

    head: Sequence[str]
    """Column titles, one ending in ``#`` stands over numbers."""
    rows: Sequence[Sequence[Cell]]
    """First cell: what the row is about."""
    caption: str
    """How to read it."""
    css: str = ""
    """Class of the table."""
    marked: frozenset[int] = field(default_factory=frozenset)
    """Rows set apart by a background."""

    def html(self) -> str:
        """The table as HTML."""
        head = "".join(
            f'<th scope="col"{" class=n" if title.endswith("#") else ""}>'
            f"<span>{escape(title.removesuffix('#'))}</span></th>"
            for title in self.head
        )
        body = "".join(
            ('<tr class="best">' if place in self.marked else "<tr>")
            + row[0].html("th")
            + "".join(cell.html() for cell in row[1:])
            + "</tr>\n"
            for place, row in enumerate(self.rows)
        )
        css = f' class="{self.css}"' if self.css else ""
        return (
            f'<div class="wide"><table{css}><caption>{escape(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
        )


def picture(svg: str, *, alt: str, caption: str) -> str:
    """A picture inside the page, with what it shows in words and how to read it.

    As an image rather than as markup, so that ids of two pictures cannot meet.
    """
    without_prolog = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL).strip()
    data = base64.b64encode(without_prolog.encode()).decode()
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """A section under a heading."""
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{"".join(parts)}</section>\n'


def paragraph(text: str, css: str = "") -> str:
    """Escaped text as a paragraph."""
    return f"<p{f' class={css}' if css else ''}>{escape(text)}</p>\n"


def bullets(sentences: Sequence[str], css: str) -> str:
    """Escaped sentences as a list."""
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences)
    return f'<ul class="{css}">\n{items}</ul>\n'


def count(value: int | None) -> str:
    """Customers, or that they are hidden.

    Example:
        >>> count(12345), count(None)
        ('12,345', 'hidden')
    """
    return HIDDEN if value is None else f"{value:,}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 0 to 1 as per cent; a dash for None."""
    return "–" if value is None else f"{value:.{digits}%}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with separators; a dash for None."""
    return "–" if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"  # never -0


def money(value: float | None) -> str:
    """An amount: no cents from 1,000 on; a dash for None.

    Example:
        >>> money(1234567.8), money(12.5)
        ('1,234,568', '12.50')
    """
    return number(value, 0 if value is not None and abs(value) >= 1_000 else 2)


def rounded_money(value: float) -> str:
    """An amount in few digits.

    Example:
        >>> rounded_money(1211017.3), rounded_money(950.5)
        ('1.21 million', '950.50')
    """
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.2f} {word}"
    return money(value)


def counted(value: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "alert"), counted(1200, "customer")
        ('1 alert', '1,200 customers')
    """
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def _shade(heat: float) -> str:
    share = min(max(heat, 0.0), 1.0)
    red, green, blue = (
        round(light + (dark - light) * share) for light, dark in zip(_LIGHT, _DARK, strict=True)
    )
    return f"background:rgb({red},{green},{blue});color:{'#fff' if share > 0.69 else '#0b0f13'}"
