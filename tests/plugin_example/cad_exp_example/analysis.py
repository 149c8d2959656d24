"""An analysis: how loud each layer is, beside the same network with random weights."""

import pandas as pd
from torch import Tensor

from cad_exp.evaluation.analyses.base import Analysis, Findings, Given
from cad_exp.evaluation.analyses.views import Lines
from cad_exp.evaluation.intervals.images import Mean
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.variants import NETWORK, UNTRAINED


class Loudness(Analysis):
    """The mean of the absolute activations of each hookpoint, to some power."""

    reads_activations, reads_untrained = "mean", True

    def __init__(self, power: float = 1.0):
        self.power = power

    def find(self, given: Given) -> Findings:
        loud = {name: self._mean(each) for name, each in given.activations.items()}
        random = {name: self._mean(each) for name, each in given.untrained.items()}
        told = {"what": f"mean over images of |activation|^{self.power:g}"}
        metrics = []
        for name, n in ((name, len(given.images)) for name in loud):
            metrics += [metric(f"loudness@{name}", NETWORK, loud[name], n, None, told, {UNTRAINED: random[name]})]
            metrics += [metric(f"loudness@{name}", UNTRAINED, random[name], n, None, told, {})]
        table = pd.DataFrame({"hookpoint": list(loud), "loudness": [each.value for each in loud.values()]})
        values = table["loudness"].to_numpy()[None]
        drawn = Lines("How loud each layer is", "hookpoint", list(loud), [NETWORK], values, values, values)
        loudest = max(loud, key=lambda name: loud[name].value)
        return Findings(table, metrics, [drawn], {"loudest": f"{loudest}, on average over images."})

    def _mean(self, activations: Tensor) -> Mean:
        return Mean(activations.abs().pow(self.power).flatten(1).mean(1).numpy())
