"""The only Feast client: rows to write, the point-in-time join, the online look-up."""
