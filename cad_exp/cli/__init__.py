"""The commands: run, help, cache, memory, plugins, tables, search. No science."""

COMMANDS = ("cache", "memory", "plugins", "search", "tables")  # each a module here; anything else is a run or a sweep
