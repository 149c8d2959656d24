"""The commands: run, help, cache, hookpoints, memory, plugins, tables, search. No science."""

COMMANDS = (
    "cache",
    "hookpoints",
    "memory",
    "plugins",
    "search",
    "tables",
)  # each a module here; anything else is a run or a sweep
