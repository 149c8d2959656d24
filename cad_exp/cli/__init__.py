"""The commands: run, help, cache, memory, tables, search. No science."""
