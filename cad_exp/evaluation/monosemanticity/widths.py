"""What results.json holds of two dictionaries side by side: splitting, absorption, and the latents they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.monosemanticity import absorption as absorbing
from cad_exp.evaluation.monosemanticity import splitting as splits
from cad_exp.evaluation.monosemanticity.absorption import Absorption
from cad_exp.evaluation.monosemanticity.matching import Shared
from cad_exp.evaluation.monosemanticity.metrics import Metric
from cad_exp.evaluation.monosemanticity.splitting import Splitting


def splitting_metric(
    variant: str, label: str, own: Splitting, against: Mapping[str, Splitting] | None = None
) -> Metric:
    """Return `split_latents@LABEL`: over how many latents a class is spread; against: of another width, by its name."""
    last = [rise[number - 1] for rise, number in zip(own.f1, own.numbers, strict=True) if number]
    definition = {
        "what": f"latents of a class until one more raises F1 by at most {splits.JUMP}; mean over classes",
        "source": "arXiv 2409.14507",
        "classes": len(own.mains),
        "chance": float(own.chance.mean()),
        "chance_is": "the same with all latents but the best permuted among images",
        "f1_of_one": float(np.nan_to_num(own.f1[:, 0]).mean()),
        "f1_of_all": float(np.sum(last) / len(own.mains)),
        "chosen": "latents by training images, F1 on validation images",
    }
    others = {name: each.mean() for name, each in (against or {}).items()}
    return metric(f"split_latents@{label}", variant, own.mean(), len(own.mains), False, definition, others)


def absorption_metrics(
    variant: str, label: str, own: Absorption, against: Mapping[str, Absorption] | None = None
) -> Iterator[Metric]:
    """Yield `absorption@LABEL` and the most that it can be, `silence@LABEL`; nothing where no image is read rightly.

    against: of another width on the same activations, by its name; the change is paired by image.
    """
    number = sum(map(len, own.absorbed))
    if not number:
        return
    definition = {
        "source": "arXiv 2409.14507",
        "over": "test images whose class a linear probe on the activations reads rightly",
        "classes": sum(len(each) > 0 for each in own.absorbed),
    }
    what = "share of images in which all main latents of the class are silent"
    instead = f"{what} and another latent carries at least {absorbing.SHARE} of the class's direction"
    absorbed = {**definition, "what": instead, "cosine": absorbing.COSINE, "chance": float(own.chance.mean()),
                "chance_is": "the same with the decoder directions of all other latents dealt out anew"}  # fmt: skip
    rates = {name: each.rate() for name, each in (against or {}).items()}
    silences = {name: each.silence() for name, each in (against or {}).items()}
    yield metric(f"absorption@{label}", variant, own.rate(), number, False, absorbed, rates)
    yield metric(f"silence@{label}", variant, own.silence(), number, False, {**definition, "what": what}, silences)


def shared_metrics(variant: str, other: str, own: Shared) -> Iterator[Metric]:
    """Yield `shared_latents@OTHER`: the share of a dictionary's latents with a partner in another seed or width.

    Nothing where no latent acts.
    """
    if not own.alive.any():
        return
    definition = {
        "what": f"share of latents with a one-to-one partner, their decoder directions' cosine at least {own.cosine}",
        "source": "arXiv 2501.16615",
        "other": other,
        "dead": int((~own.alive).sum()),
        "chance": own.chance,
        "chance_is": "random directions of the same numbers of latents",
    }
    yield metric(f"shared_latents@{other}", variant, own.share(), int(own.alive.sum()), True, definition, {})
