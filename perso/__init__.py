"""perso: a shop's event stream becomes personal recommendations."""

__version__ = "0.1.0"
