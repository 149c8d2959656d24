"""The commands: run, help, cache, export, hookpoints, latents, memory, plugins, report, search, tables. No science."""

COMMANDS = (
    "cache",
    "export",
    "hookpoints",
    "latents",
    "memory",
    "plugins",
    "report",
    "search",
    "tables",
)  # each a module here; anything else is a run or a sweep
