"""The commands: run, help, cache, export, hookpoints, latents, memory, plugins, report, search, shared, tables."""

COMMANDS = (
    "cache",
    "export",
    "hookpoints",
    "latents",
    "memory",
    "plugins",
    "report",
    "search",
    "shared",
    "tables",
)  # each a module here; anything else is a run or a sweep
