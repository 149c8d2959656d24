"""What counts as showing the concept: J as a differentiable function of the gates."""

from cad_exp.utils.registry import Entry, Registry

OBJECTIVES = Registry(
    "objective",
    {
        "erase": "cad_exp.attribution.objectives.noise:Erase",
        "amplify": "cad_exp.attribution.objectives.noise:Amplify",
        "projection": "cad_exp.attribution.objectives.noise:Projection",
        "guidance_norm": "cad_exp.attribution.objectives.noise:GuidanceNorm",
        "clip": Entry("cad_exp.attribution.objectives.image:ClipSimilarity", facts={"asks": ("clip",)}),
        "judge": Entry("cad_exp.attribution.objectives.image:JudgeLogit", facts={"asks": ("logits",)}),
        "contrast": "cad_exp.attribution.objectives.contrast:Contrast",
    },
    usual={"asks": ()},
)
