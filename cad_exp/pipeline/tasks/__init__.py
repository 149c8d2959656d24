"""The tasks: each builds the graph of a run from its config, and each fits on one screen."""
