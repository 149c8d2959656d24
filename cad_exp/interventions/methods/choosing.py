"""Methods that choose components by their scores. Which scores, the estimator of their configs says."""

from __future__ import annotations

from typing import Any

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.selection import Scored, no_edit, random_edit, select


class Erase:
    """The components with the highest scores, which make the concept."""

    @staticmethod
    def select(attribution: Scored, granularity: str, seed: int, budget: dict[str, Any]) -> Edit:
        """Choose the components with the highest scores, within the budget."""
        return select(attribution, granularity, "positive", **budget)


class Amplify:
    """Those with the lowest scores, which suppress the concept."""

    @staticmethod
    def select(attribution: Scored, granularity: str, seed: int, budget: dict[str, Any]) -> Edit:
        """Choose the components with the lowest scores, within the budget."""
        return select(attribution, granularity, "negative", **budget)


class Random:
    """As many as `Erase` chooses, drawn by the seed."""

    @staticmethod
    def select(attribution: Scored, granularity: str, seed: int, budget: dict[str, Any]) -> Edit:
        """Draw as many components as `Erase` chooses, by the seed."""
        return random_edit(Erase.select(attribution, granularity, seed, budget), attribution, granularity, seed)


class Nothing:
    """No component."""

    @staticmethod
    def select(attribution: Scored, granularity: str, seed: int, budget: dict[str, Any]) -> Edit:
        """Choose no component; the budget does not count."""
        return no_edit(attribution)
