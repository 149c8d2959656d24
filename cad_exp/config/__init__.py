"""The composed config: its options, what is left open filled in, everything checked. No torch."""
