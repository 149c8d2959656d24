"""The game J(gates), its objectives and the estimators of each component's score."""
