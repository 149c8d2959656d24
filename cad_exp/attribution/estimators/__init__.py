"""Estimators: rules that turn a game, J(gates), into one signed score per component. They know nothing but the game."""

from typing import Any

from cad_exp.attribution.estimators.ablated import AblatedGradients
from cad_exp.attribution.estimators.base import Estimator, Scores, Watch
from cad_exp.attribution.estimators.baselines import Magnitude, Random, Wanda
from cad_exp.attribution.estimators.coar import Coar
from cad_exp.attribution.estimators.gradients import FirstOrder, GradientMagnitude, IntegratedGradients
from cad_exp.attribution.estimators.leave_one_out import LeaveOneOut
from cad_exp.attribution.estimators.patching import ActivationPatching
from cad_exp.attribution.estimators.saliency import Saliency
from cad_exp.attribution.estimators.shapley import Shapley
from cad_exp.utils.errors import UserError, choose

ESTIMATORS = {
    cls.name: cls
    for cls in (
        FirstOrder,
        IntegratedGradients,
        AblatedGradients,
        LeaveOneOut,
        ActivationPatching,
        Coar,
        Shapley,
        Wanda,
        Magnitude,
        GradientMagnitude,
        Saliency,
        Random,
    )
}
__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Scores",
    "Watch",
    "make_estimator",
    *(cls.__name__ for cls in ESTIMATORS.values()),
]


def make_estimator(name: str, **settings: Any) -> Estimator:
    """An estimator by name (`first_order`, `shapley`, ...) with its own settings. UserError for unknown ones."""
    cls = ESTIMATORS[choose(name, ESTIMATORS, "estimator")]
    try:
        return cls(**settings)
    except TypeError as error:
        raise UserError(f"estimator {name} does not take these settings: {error}") from error
