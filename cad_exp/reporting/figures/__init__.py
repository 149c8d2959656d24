"""Pictures of scores, fidelity and timesteps."""
