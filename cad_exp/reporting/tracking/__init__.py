"""Weights & Biases as a mirror of the run's folder: offline by default, and never a question about an account.

`results.json` stays the truth, complete before anything is mirrored. An offline run lies in `folder`/wandb and can be
sent later with `wandb sync`. A W&B that fails costs one line, never the run.
"""
