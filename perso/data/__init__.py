"""Events become interactions: checking, cleaning, weighting, splitting. No Ray in here."""
