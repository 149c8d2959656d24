"""The commands: run, help, cache, hookpoints, latents, memory, plugins, report, search, tables. No science."""

COMMANDS = (
    "cache",
    "hookpoints",
    "latents",
    "memory",
    "plugins",
    "report",
    "search",
    "tables",
)  # each a module here; anything else is a run or a sweep
