"""The report of a finished search: one self-contained HTML page, and the same as Markdown."""
