"""Prompt sets: from files and from templates, checked row by row, and the image requests made of them. No torch."""

from cad_exp.data.prompts.plan import plan
from cad_exp.data.prompts.sets import load

__all__ = ["load", "plan"]
