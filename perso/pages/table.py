"""Tables of a page, as HTML and as Markdown: every text in them is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from perso.pages.markdown import escape_markdown
from perso.pages.number_text import HIDDEN

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

    def markdown(self, *, is_bold: bool = False) -> str:
        """Both lines of the cell in one, without marks and shades."""
        text = escape_markdown(self.text)
        small = f"<br><sub>{escape_markdown(self.small)}</sub>" if self.small else ""
        return f"**{text}**{small}" if is_bold and text else text + small


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

    def markdown(self) -> str:
        """The table as GitHub's Markdown, marked rows in bold, its caption before it."""
        head = [escape_markdown(title.removesuffix("#")) for title in self.head]
        ruler = ["---:" if title.endswith("#") else ":---" for title in self.head]
        lines = [head, ruler]
        for place, row in enumerate(self.rows):
            lines.append([cell.markdown(is_bold=place in self.marked) for cell in row])
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        caption = f"{escape_markdown(self.caption)}\n\n" if self.caption else ""
        return f"{caption}{rows}\n"


def _shade(heat: float) -> str:
    share = min(max(heat, 0.0), 1.0)
    red, green, blue = (
        round(light + (dark - light) * share) for light, dark in zip(_LIGHT, _DARK, strict=True)
    )
    return f"background:rgb({red},{green},{blue});color:{'#fff' if share > 0.69 else '#0b0f13'}"
