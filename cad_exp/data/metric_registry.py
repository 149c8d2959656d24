"""The metrics by name, and what each needs. They are computed two floors up; the plan of images asks here."""

from collections.abc import Iterable

from cad_exp.utils.registry import Entry, Registry

# looks_at: of the images of the concept, or of those of what is to stay ("retention").
# asks of the judge: whether images show the concept ("label") or what they were asked for ("labels"); "features" of
# images, their cosine to the prompt ("clip"), their "distance" to others.
METRICS = Registry(
    "metric",
    {
        "erasure": Entry("cad_exp.evaluation.erasure:Erasure", facts={"looks_at": ("concept",), "asks": ("label",)}),
        "retention": Entry(
            "cad_exp.evaluation.erasure:Retention", facts={"looks_at": ("retention",), "asks": ("labels",)}
        ),
        "quality": Entry(
            "cad_exp.evaluation.quality:Quality",
            facts={"looks_at": ("retention",), "asks": ("features", "clip", "distance")},
        ),
    },
)


def looking_at(purpose: str, metrics: Iterable[str]) -> list[str]:
    """Those of the metrics that look at images of this purpose. Raises UserError for an unknown metric."""
    return [name for name in metrics if purpose in METRICS.fact(name, "looks_at")]


def asked(metrics: Iterable[str]) -> set[str]:
    """All that the metrics ask of the judge."""
    return {each for name in metrics for each in METRICS.fact(name, "asks")}
