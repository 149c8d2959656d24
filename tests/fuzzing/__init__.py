"""A fuzz of the command line: hostile overrides and files in a folder of somebody's own, which must stay as it was.

python -m tests.fuzzing --overrides 500 --files 90 --seed 0
"""
