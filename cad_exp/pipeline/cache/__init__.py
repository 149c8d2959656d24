"""The stage cache: what a finished stage made, found again by all that it depends on, and never trusted unread.

`store` hands entries out and makes them; `entry` tells a whole entry from a damaged one; `folder` is where they lie;
`leases` says which processes use them; `prune` removes them. `python -m cad_exp cache` lists and prunes.
"""
