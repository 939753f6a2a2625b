"""Self-contained HTML pages: how text, tables, numbers and pictures look. Knows no content."""
