"""The commands: run, help, cache, memory, tables, search. No science."""

COMMANDS = ("cache", "memory", "search", "tables")  # each a module here; anything else is a run or a sweep
