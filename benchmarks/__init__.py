"""Speed and memory as ratios, ours against a plain peer measured in the same run: `python -m benchmarks`."""
