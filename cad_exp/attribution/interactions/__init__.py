"""How components work together: what their joint effect is beyond the sum, and edits that count on it."""
