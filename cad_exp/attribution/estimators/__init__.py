"""Estimators: rules that turn a game, J(gates), into one signed score per component. They know nothing but the game."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cad_exp.utils.registry import Registry

if TYPE_CHECKING:
    from cad_exp.attribution.estimators.base import Estimator

ESTIMATORS = Registry(
    "estimator",
    {
        "first_order": "cad_exp.attribution.estimators.gradients:FirstOrder",
        "integrated_gradients": "cad_exp.attribution.estimators.gradients:IntegratedGradients",
        "ablated_gradients": "cad_exp.attribution.estimators.ablated_gradients:AblatedGradients",
        "leave_one_out": "cad_exp.attribution.estimators.leave_one_out:LeaveOneOut",
        "activation_patching": "cad_exp.attribution.estimators.patching:ActivationPatching",
        "coar": "cad_exp.attribution.estimators.coar:Coar",
        "shapley": "cad_exp.attribution.estimators.shapley:Shapley",
        "wanda": "cad_exp.attribution.estimators.baselines:Wanda",
        "magnitude": "cad_exp.attribution.estimators.baselines:Magnitude",
        "gradient_magnitude": "cad_exp.attribution.estimators.gradients:GradientMagnitude",
        "saliency": "cad_exp.attribution.estimators.saliency:Saliency",
        "activation_difference": "cad_exp.attribution.estimators.activation_difference:ActivationDifference",
        "random": "cad_exp.attribution.estimators.baselines:Random",
    },
)


def make_estimator(name: str, **settings: Any) -> Estimator:
    """Make an estimator by name (`first_order`, `shapley`, ...), or by `_target_`, with its own settings.

    Raises UserError for an unknown name, and for settings that the class does not take.
    """
    estimator: Estimator = ESTIMATORS.make({"name": name, **settings})
    return estimator
