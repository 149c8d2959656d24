"""A metric of the images alone."""

import numpy as np

from cad_exp.evaluation.metric import ImageMetric


class Redness(ImageMetric):
    """How much of an image's light is red."""

    name, what, higher_is_better = "redness", "share of the red channel in the light of an image, mean", None

    def value(self, image: np.ndarray) -> float:
        return float(image[..., 0].sum() / max(1, image.sum()))
