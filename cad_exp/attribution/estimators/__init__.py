"""Estimators: rules that turn a game, J(gates), into one signed score per component. They know nothing but the game."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cad_exp.utils.errors import UserError
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
"""Every estimator by name. `make_estimator` makes one; the docstring of its class names its source and settings."""


def make_estimator(name: str, **settings: Any) -> Estimator:
    """Make an estimator, which `attribute` takes in place of a name.

    Args:
        name: a name of ESTIMATORS. `first_order` is CAD's (arXiv 2412.02542), `coar` that of arXiv 2404.11534.
        settings: those of the class, as the group `estimator` of a config holds them: `patterns` (ablations, at least
            2), `rates` (shares in (0, 1)), `seed`. `_target_`, the dotted path of a class, stands for a name.

    Returns:
        The estimator. It gives a score for each component, (n,) fp32, in units of the objective.

    Raises:
        UserError: an unknown name, settings that the class does not take, or a class that is no estimator.

    Examples:
        >>> cad_exp.make_estimator("ablated_gradients", patterns=16, rates=[0.05]).name
        'ablated_gradients'
        >>> cad_exp.make_estimator("first_odrer")
        Traceback (most recent call last):
        cad_exp.utils.errors.UserError: unknown estimator 'first_odrer': did you mean 'first_order'? There are: ...
    """
    from cad_exp.attribution.estimators.base import Estimator

    estimator = ESTIMATORS.make({"name": name, **settings})
    if not isinstance(estimator, Estimator):
        raise UserError(f"estimator {name}: its class has to derive from {Estimator.__module__}.Estimator")
    return estimator
