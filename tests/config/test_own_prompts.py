"""Which prompts ask for the concept itself, however they are written."""

import pytest

from cad_exp.config.own_prompts import asks, is_thing, kept

CHURCH = {"kind": "object", "label": "church", "prompt": "church", "base_prompt": ""}
CHURCH |= {"evaluation_prompts": ["a photo of a church"], "validation_prompts": ["a chapel at night"]}


def own(prompt: str, *shown: str) -> dict:
    """A concept of one's own, whose prompt is shown unless another one is."""
    return {"kind": "custom", "label": None, "prompt": prompt, "evaluation_prompts": [*shown] or [prompt]}


@pytest.mark.parametrize(
    "prompt, its",
    [
        ("church", True),
        ("A  Church", True),
        ("a drawing of the church", True),
        ("a chapel at night", True),
        ("a church at night", False),
        ("churchyard", False),
        ("a photo", False),
        ("", False),
    ],
)
def test_the_concepts_own_prompts_are_known_in_every_frame(prompt: str, its: bool):
    assert asks(prompt, CHURCH) == its


def test_words_that_name_nothing_are_compared_as_they_are():
    nothing = CHURCH | {"prompt": "a photo", "evaluation_prompts": ["a photo"], "validation_prompts": None}
    assert asks("A photo", nothing) and not asks("a picture", nothing) and not asks("", nothing)


def test_a_contrast_does_not_depend_on_how_a_strength_is_chosen():
    """Its weights are counted by its prompts, whether the run has validation prompts or not."""
    prompts = ["a dog", "Church", "a chapel at night"]
    without = {key: value for key, value in CHURCH.items() if key != "validation_prompts"}
    assert kept(prompts, CHURCH) == kept(prompts, without) == ["a dog", "a chapel at night"]


@pytest.mark.parametrize(
    "concept, thing, same",
    [
        (CHURCH, ("object", "church"), True),
        (CHURCH, ("object", "tench"), False),
        (own("a golf ball"), ("object", "golf ball"), True),
        (own("a photo of a Golf  Ball"), ("object", "golf ball"), True),
        (own("a golf ball on a lawn"), ("object", "golf ball"), False),
        (own("golf balls"), ("object", "golf ball"), False),
        (own("a painting in the style of Van Gogh"), ("style", "Van Gogh"), True),
        (own("naked person"), ("clothed", "person"), False),
        (own("a golf ball"), ("custom", ""), False),
        (own("a fish", "a photo of a tench"), ("object", "tench"), True),
    ],
)
def test_a_concept_is_a_thing_of_the_world_by_its_label_or_by_its_prompt(concept, thing, same: bool):
    assert is_thing(concept, *thing) == same
