"""How components work together: what their joint effect is beyond the sum of their scores."""
