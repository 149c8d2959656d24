"""The filter of prompts that must never be drawn."""
