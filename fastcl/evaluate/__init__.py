"""How good features are: nearest neighbours, a linear probe with few labels, a picture."""
