"""The segment report: week summaries to one self-contained HTML page."""
