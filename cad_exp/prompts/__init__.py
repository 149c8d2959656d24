"""Prompt sets: from files and from templates, checked row by row, and the shots that a run makes of them. No torch."""

from .plan import plan
from .sets import load

__all__ = ["load", "plan"]
