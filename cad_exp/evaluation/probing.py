"""How well probes read what an image shows: balanced accuracy with its interval, and the gain over a rival's.

Balanced accuracy is the mean over classes of the share of their test images that are read rightly; it is 1 / classes by
chance, however many images a class has. Rivals read the same test images, so the gain is paired.
"""

from __future__ import annotations

import numpy as np

from cad_exp.evaluation.intervals.labels import Shares


def shares(right: np.ndarray, classes: np.ndarray) -> Shares:
    """Return balanced accuracy as an estimate with intervals.

    Args:
        right: (N,) whether each test image was read rightly.
        classes: (N,) its class; the order of the images is kept, so that two probes' changes are paired.
    """
    return Shares([np.asarray(right, float)[classes == each] for each in np.unique(classes)])
