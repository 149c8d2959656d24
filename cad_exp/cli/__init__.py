"""The commands: run, help, cache, hookpoints, latents, memory, plugins, tables, search. No science."""

COMMANDS = (
    "cache",
    "hookpoints",
    "latents",
    "memory",
    "plugins",
    "search",
    "tables",
)  # each a module here; anything else is a run or a sweep
