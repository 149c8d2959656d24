"""Records of images, metrics with intervals, judges, the fidelity of scores."""
