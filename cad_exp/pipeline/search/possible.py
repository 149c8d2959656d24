"""Which edits of a search's space can work: each combination is checked as a run is, before the first trial."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from cad_exp.config import commands
from cad_exp.pipeline import combinations
from cad_exp.pipeline.combinations import Checked
from cad_exp.pipeline.search.plan import BRIEF, OVERRIDES, Plan
from cad_exp.pipeline.search.study import Parameters, Space
from cad_exp.utils import console
from cad_exp.utils.errors import UserError


def narrow(plan: Plan) -> Plan:
    """Return the plan with a space without the values that no combination can use, each of which is told.

    Raises UserError where the command named such a value, and for two values that cannot work together: the sampler
    draws each on its own.
    """
    choices = {name: sorted(set(v)) if isinstance(v, tuple) else v for name, v in plan.space.items()}  # a range: ends
    asked: list[Parameters] = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    runs = [[*BRIEF, *plan.arguments(parameters)] for parameters in asked]
    tried = list(zip(asked, combinations.each(runs, plan.config_folders), strict=True))
    refused = [(parameters, run) for parameters, run in tried if run.graph is None]
    if len(refused) == len(tried):
        raise UserError(refused[0][1].error)
    lost = {name: _lost(name, choices[name], tried) for name in choices}
    for name, errors in lost.items():
        for value, error in errors.items():
            if name in plan.named:
                raise UserError(f"space.{name} holds {commands.text(value)}, which cannot work: {error}")
            console.say(f"{name} {commands.text(value)} is not searched: {error}", style="yellow", stderr=True)
    for parameters, run in refused:
        if not any(parameters[name] in lost[name] for name in choices):
            shown = " with ".join(commands.override(OVERRIDES[name], value) for name, value in parameters.items())
            raise UserError(f"the space holds what cannot work together, {shown}: {run.error}")
    left: Space = {name: [v for v in values if v not in lost[name]] for name, values in choices.items()}
    return replace(plan, space={name: v if isinstance(v, tuple) else left[name] for name, v in plan.space.items()})


def _lost(name: str, values: list[Any], tried: list[tuple[Parameters, Checked]]) -> dict[Any, str]:
    """Return the values that every combination with them is refused for, each with the first reason."""
    found = {value: [run for parameters, run in tried if parameters[name] == value] for value in values}
    return {value: runs[0].error for value, runs in found.items() if all(run.graph is None for run in runs)}
