"""How a page is written as HTML: escaped text, sections, pictures inside.

Decides the form of a page that needs nothing but itself: no script, no address, pictures inline.
"""

import base64
import re
from collections.abc import Sequence
from html import escape

from perso.pages.stylesheet import STYLE


def document(*, title: str, header: str, main: str, footer: str, style: str = "") -> str:
    """A whole page of parts that are HTML already; the title is escaped.

    Args:
        title: What a browser's tab shows.
        header: What stands above.
        main: The sections.
        footer: What stands below.
        style: Rules of this kind of page, after those of all pages.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        f"<header>\n{header}</header>\n<main>\n{main}</main>\n"
        f"<footer>{footer}</footer>\n</body>\n</html>\n"
    )


def contents(links: Sequence[tuple[str, str]]) -> str:
    """Links to the sections: anchor and name of each."""
    links_html = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name in links)
    return f"<nav>{links_html}</nav>\n"


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """Figures in large type, each with what it is."""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
            for value, what in figures
        )
        + "</div>\n"
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
