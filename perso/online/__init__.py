"""Between two trainings: what the newest events change, and how an answer is put together."""
