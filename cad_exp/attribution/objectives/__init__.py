"""What counts as showing the concept: J as a differentiable function of the gates."""
