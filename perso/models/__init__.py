"""Recommenders: one family per file, one protocol, one dot product at serving time."""
