"""edit=joint: all gates at once, for the least of the concept and the least change of everything else."""

from __future__ import annotations

from typing import Any

import torch

from cad_exp.attribution.interactions.quadratic import Quadratic
from cad_exp.attribution.interactions.solve import solve
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.utils.errors import UserError


class Joint:
    """A method that solves for the gates of all components together."""

    @staticmethod
    def choose(
        space: ComponentSpace,
        concept: Quadratic,
        retained: Quadratic,
        keep: float,
        lowest: float,
        sparsity: float,
        least: float,
        meta: dict[str, Any] | None = None,
    ) -> Edit:
        """Return the edit with the best gates.

        Args:
            space: the components.
            concept: what is left of the concept, as a function of their gates.
            retained: how far all other predictions move.
            keep: lambda, what a change of the others weighs against what is left of the concept.
            lowest: the least change of a gate: -1 switches off, -2 may also reverse.
            sparsity: weight of the sum of all changes, in units of the intact concept's J per component.
            least: changes of less than this are left out.
            meta: noted in the edit.

        Raises:
            UserError: nothing is worth a change.
        """
        found = solve(concept, retained, keep, lowest, sparsity * concept.constant)
        selected = (found.d.abs() >= least).nonzero()[:, 0]
        if not len(selected):
            raise UserError(f"edit.keep={keep} leaves every component as it is: a smaller number erases more")
        d = torch.zeros(space.n)
        d[selected] = found.d[selected]
        facts = {
            "edit": "joint",
            "sign": "positive",
            "scope": "global",
            "requested": space.n,
            "keep": keep,
            "lowest": lowest,
            "predicted": {
                "concept": float(concept.value(d)) / concept.constant,
                "others": float(retained.value(d)) / concept.constant,
            },
            "solver": {"steps": found.steps, "converged": found.converged},
        }
        return space.intervention(selected, 1 + d[selected], facts | (meta or {}))
