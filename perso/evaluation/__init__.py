"""How good a trained model is, on a period it has not seen."""
