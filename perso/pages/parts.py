"""What a page is made of, where the page is written both as HTML and as Markdown.

Pictures are in the HTML alone: a pull request shows no image that is not hosted somewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from perso.pages.markdown import escape_markdown
from perso.pages.page import bullets, paragraph, picture, section, tiles


class Part(Protocol):
    """Anything that stands between two headings."""

    def html(self) -> str:
        """As HTML, every text escaped."""
        ...

    def markdown(self) -> str:
        """As Markdown; empty if it has no place there."""
        ...


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph."""

    text: str
    """What it says."""
    css: str = ""
    """Class of the paragraph."""

    def html(self) -> str:
        """As HTML."""
        return paragraph(self.text, self.css)

    def markdown(self) -> str:
        """As Markdown."""
        return f"{escape_markdown(self.text)}\n"


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading inside a section."""

    text: str
    """What it says."""

    def html(self) -> str:
        """As HTML."""
        return f"<h3>{escape(self.text)}</h3>\n"

    def markdown(self) -> str:
        """As Markdown."""
        return f"### {escape_markdown(self.text)}\n"


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """Sentences as a list."""

    sentences: Sequence[str]
    """One or more."""
    css: str = "moves"
    """Class of the list."""

    def html(self) -> str:
        """As HTML."""
        return bullets(self.sentences, self.css)

    def markdown(self) -> str:
        """As Markdown."""
        return "".join(f"- {escape_markdown(sentence)}\n" for sentence in self.sentences)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture; not in Markdown."""

    svg: str
    """As text."""
    alt: str
    """What it shows, for who cannot see it."""
    caption: str
    """How to read it."""

    def html(self) -> str:
        """As HTML."""
        return picture(self.svg, alt=self.alt, caption=self.caption)

    def markdown(self) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Figures in large type; a list in Markdown."""

    figures: Sequence[tuple[str, str]]
    """Each with what it is."""

    def html(self) -> str:
        """As HTML."""
        return tiles(self.figures)

    def markdown(self) -> str:
        """As Markdown."""
        return "".join(
            f"- **{escape_markdown(value)}** {escape_markdown(what)}\n"
            for value, what in self.figures
        )


@dataclass(frozen=True, kw_only=True)
class Code:
    """A text with its line ends, such as YAML."""

    text: str
    """Ends with a line end."""
    language: str
    """For who colours it."""
    summary: str
    """What it is; Markdown shows this alone until somebody asks for the text."""

    def html(self) -> str:
        """As HTML."""
        return f"{paragraph(self.summary)}<pre><code>{escape(self.text)}</code></pre>\n"

    def markdown(self) -> str:
        """As a fenced block that opens on a click, the fence longer than any in the text."""
        fence = "```"
        while fence in self.text:
            fence += "`"
        block = f"{fence}{self.language}\n{self.text}{fence}\n"
        return f"<details><summary>{escape(self.summary)}</summary>\n\n{block}\n</details>\n"


@dataclass(frozen=True, kw_only=True)
class Section:
    """Parts under a heading."""

    anchor: str
    """For links to it."""
    name: str
    """Short, for the contents."""
    title: str
    """The heading."""
    parts: Sequence[Part]
    """In order."""

    def html(self) -> str:
        """As HTML."""
        return section(self.anchor, self.title, *(part.html() for part in self.parts))

    def markdown(self) -> str:
        """As Markdown; empty if all that it has are pictures."""
        body = "\n".join(filter(None, (part.markdown() for part in self.parts)))
        return f"## {escape_markdown(self.title)}\n\n{body}" if body else ""
