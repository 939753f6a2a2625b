"""Text inside Markdown that stays text."""

import re


def escape_markdown(text: str) -> str:
    r"""A text on one line in which nothing is markup, neither Markdown's nor HTML's.

    Example:
        >>> escape_markdown("a|b <i> num_factors")
        'a\\|b &lt;i&gt; num_factors'
    """
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*|\[\]~])", r"\\\1", line)
    # An underscore inside a word is no markup on GitHub, and names of settings are full of them.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)
