"""edit.strength=auto: edits are tried from the weakest on, and the walk ends where the wishes are fulfilled."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cad_exp.config.resolve import resolve
from cad_exp.data.requests import ImageRequest
from cad_exp.interventions.edit import Edit
from cad_exp.pipeline.run import run
from cad_exp.pipeline.stages.instead import Nearest
from cad_exp.pipeline.stages.strength import Strength, with_between
from cad_exp.pipeline.tasks.attribute import build
from cad_exp.pipeline.tasks.gates import prompts_to_keep
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed
from tests.pipeline.test_experiment import FAST, fast

SMALL = ["concept=church", "evaluation.samples=2", "evaluation.retention_samples=1", "evaluation.metrics=[erasure]"]
SMALL += ["edit.samples=2", "edit.confirm=1", "edit.retention_samples=1", "model.steps=2"]
ERASE = ["edit=erase", "granularity=head", "edit.strength=auto", "edit.strengths=[0.1,0.5,0.9]"]
JOINT = ["edit=joint", "granularity=head", "edit.strengths=[0.1,1,10]", "edit.steps=2", "edit.more_steps=1"]
JOINT += ["edit.trajectories=1", "edit.retain=[golf ball]"]


@pytest.mark.parametrize("given", [ERASE, JOINT], ids=["erase", "joint"])
def test_the_walk_ends_at_the_first_that_fulfils_the_wish(given: list[str], tmp_path: Path, capsys):
    """A wish of 1 is fulfilled by whatever comes first; then the edit is that of the first strength."""
    results = fast(tmp_path, *SMALL, *given, "edit.erase=1", "edit.keep=0")
    walked = results["run"]["strength"]
    assert walked["chosen"] == 0 and len(walked["tried"]) == 1 and walked["why"].startswith("the weakest that leaves")
    assert set(walked["tried"][0]) == {"strength", "left", "moved", "rate", "images", "kept"}
    assert walked["tried"][0]["images"] == 3  # two, and one that confirms
    edited, random = (Edit.load(tmp_path / f"{name}.safetensors") for name in ("edit", "edit_random"))
    assert edited.meta["chosen_by"] == walked and edited.meta["achieved"] == random.meta["achieved"] > 0
    if given is ERASE:
        assert edited.meta["ratio"] == 0.1 and "instead" not in results["run"]
    else:  # the only thing that is to stay is the nearest
        assert results["run"]["instead"] == edited.meta["instead"] == "golf ball"
        assert capsys.readouterr().out.count("in the concept's place: golf ball") == 1


def test_further_images_confirm_what_the_first_say():
    """Two of two first images lost the concept; of two further ones one did not, so a quarter still shows it."""
    asked = [ImageRequest("concept", "church", seed, "object", "church") for seed in range(4)]
    said = {"intact": ["church"] * 2, "weak": ["golf ball"] * 2, "strong": ["golf ball"] * 2}
    said |= {"weak, further": ["church", "golf ball"], "strong, further": ["golf ball"] * 2}
    judge = SimpleNamespace(threshold=0.5, knows=lambda kind, label: True)
    runtime = SimpleNamespace(
        get=lambda node: judge if node == "judge" else (pd.DataFrame({"object": said[node]}), None)
    )
    first, further = tuple(asked[:2]), tuple(asked[2:])

    def walk(erase: float) -> Strength:
        told = ("judge", first, "intact", ("weak", "strong"), further, ("weak, further", "strong, further"))
        return Strength(("a", "b"), (1.0, 2.0), erase, 0.9, None, *told)

    found = [walk(0.02)._images(runtime, number) for number in (0, 1)]
    assert found == [{"rate": rate, "images": 4, "kept": 1.0} for rate in (0.25, 0.0)]
    said["weak"] = ["church"] * 2
    assert walk(0.02)._images(runtime, 0) == {"rate": 1.0, "images": 2, "kept": 1.0}, "nothing to confirm"
    said["weak"] = ["church", "golf ball"]  # as wished, though two images alone cannot say so: further ones are asked
    assert walk(0.5)._images(runtime, 0) == {"rate": 0.5, "images": 4, "kept": 1.0}


GREEDY = ["edit=greedy", "granularity=layer", "edit.batch=6", "edit.steps=1", "edit.more_steps=2", "edit.beyond=1"]
GREEDY += ["edit.trajectories=1", "edit.retain=[golf ball]"]


def test_a_strength_may_change_nothing_but_not_the_edit(tmp_path: Path):
    """A price too low for any component is one of the strengths tried; where it is the best, there is no edit."""
    results = fast(tmp_path / "two", *SMALL, *GREEDY, "edit.strengths=[1e-6,1]", "judge=none")
    first, second = results["run"]["strength"]["tried"]
    assert first["moved"] < 1e-6 < second["moved"] and first["left"] > second["left"]
    assert first["left"] == pytest.approx(1, abs=1e-5), "the whole way, however far past the other prompt it leads"
    with pytest.raises(UserError, match="an edit that changes no component .*: larger edit.strengths"):
        fast(tmp_path / "one", *SMALL, *GREEDY, "edit.strengths=[1e-6]")
    with pytest.raises(UserError, match="edit=greedy changes no component .* a larger edit.strength"):
        fast(tmp_path / "given", *SMALL, *GREEDY, "edit.strength=1e-6")


def test_without_a_judge_noisy_latents_choose(tmp_path: Path):
    results = fast(tmp_path, *SMALL, *ERASE, "judge=none")
    walked = results["run"]["strength"]
    assert len(walked["tried"]) == 3 and "no judge" in walked["why"] and "rate" not in walked["tried"][0]
    sums = [row["left"] + row["moved"] for row in walked["tried"]]
    assert walked["chosen"] == sums.index(min(sums))


def test_images_that_choose_are_not_those_of_the_table():
    """Neither their words, nor their seeds; nor do the noisy latents at which gates are found."""
    graph = build(resolve(composed("concept=nudity", "granularity=neuron", "edit=joint")))
    walk = graph.edits["edited"].strength
    chosen_by = (*walk.requests, *walk.further)
    assert len(set(chosen_by)) == len(chosen_by) and len(walk.further) == 64
    shown, chose = ({(each.prompt, each.seed) for each in asked} for asked in (graph.requests, chosen_by))
    assert not {prompt for prompt, _ in shown} & {prompt for prompt, _ in chose}
    assert not {seed for _, seed in shown} & {seed for _, seed in chose}
    trained = walk.edits[0].gates.task
    seeds = [
        {seed for latents in (*task.latents, *task.retained) for part in latents.parts for seed in part.seeds}
        for task in (trained, walk.task)
    ]
    assert not seeds[0] & seeds[1] and not seeds[0] & {seed for _, seed in shown | chose}


def test_something_takes_the_place_of_what_is_erased():
    """The base prompt's images, along its guided trajectories and of seeds that nothing else uses."""
    walk = build(resolve(composed("concept=nudity", "granularity=neuron"))).edits["edited"].strength
    task = walk.edits[0].gates.task
    (place,) = task.landing
    parts = place.parts
    assert {part.prompt for part in parts} == {"a photo of a person"} and {part.base_prompt for part in parts} == {""}
    landing = {seed for part in parts for seed in part.seeds}
    (own,) = task.latents  # guided from the empty prompt, as images are, and not from the base prompt
    assert {(part.prompt, part.base_prompt) for part in own.parts} == {("naked person", "")}
    others = {seed for each in (*task.latents, *task.retained) for part in each.parts for seed in part.seeds}
    assert len(landing) == 64 and not landing & (others | {request.seed for request in walk.requests})


def test_an_object_without_a_base_prompt_is_replaced_by_the_nearest_of_what_is_to_stay():
    (landing,) = landing_of("concept=church")
    assert isinstance(landing, Nearest)
    prompts = [each.prompt for each in landing.each]
    kept = prompts_to_keep(resolve(composed("concept=church")))
    assert prompts == [prompt for prompt in kept if "style" not in prompt] and "a picture of a tench" in prompts
    assert len(prompts) == 10 and not any("church" in prompt for prompt in prompts)
    (told,) = landing_of("concept=church", "edit.instead=a photo of a person")
    assert told.prompt == "a photo of a person" and {part.base_prompt for part in told.parts} == {""}
    without = (
        ["concept=van_gogh", "edit.instead=null"],
        ["concept=van_gogh", "edit.landing=0"],
        ["concept=nudity", "edit.landing=0"],
        ["concept=church", "edit.landing=0"],
        ["concept=church", "edit.instead=null"],
    )
    for given in without:
        assert landing_of(*given) == ()


def test_a_style_leaves_the_things_that_it_was_laid_over():
    """Each thing that is to stay, in words that no image is judged by; the seeds are shared among them."""
    walk = build(resolve(composed("concept=van_gogh", "granularity=neuron"))).edits["edited"].strength
    task = walk.edits[0].gates.task
    pairs = [(asked.prompt, place.prompt) for asked, place in zip(task.latents, task.landing, strict=True)]
    assert len(pairs) == 11 and ("a picture of a tench in the style of Van Gogh", "a picture of a tench") in pairs
    assert all(asked == f"{place} in the style of Van Gogh" for asked, place in pairs)
    # all along the trajectories of the images that are drawn, guided from the empty prompt
    assert {part.base_prompt for each in (*task.latents, *task.landing) for part in each.parts} == {""}
    judged = {request.prompt for request in (*walk.requests, *walk.further)}
    assert not judged & {asked for asked, _ in pairs}
    for each in (*task.latents, *task.landing):  # 64 among 11
        assert sum(len(part.seeds) for part in each.parts) == 6
    assert [each.prompt for each in walk.task.latents] == [asked for asked, _ in pairs]
    seeds = [{seed for each in of.latents for part in each.parts for seed in part.seeds} for of in (task, walk.task)]
    assert not seeds[0] & seeds[1]


def test_a_style_may_be_led_to_one_prompt_as_well():
    (place,) = landing_of("concept=van_gogh", "edit.instead=a photo of a person")
    assert place.prompt == "a photo of a person"
    task = task_of("concept=van_gogh", "edit.instead=null")
    assert [each.prompt for each in task.latents] == ["a photo in the style of Van Gogh"]
    few = task_of("concept=van_gogh", "edit.retain=[a dog,a cat,a photo in the style of Monet]")
    assert [each.prompt for each in few.landing] == ["a dog", "a cat"]
    assert [each.prompt for each in few.latents] == [f"{pet} in the style of Van Gogh" for pet in ("a dog", "a cat")]
    for nameless in ("concept.label=null", "edit.retain=[a photo in the style of Monet]"):
        task = task_of("concept=van_gogh", nameless)
        assert [each.prompt for each in task.latents] == ["a photo in the style of Van Gogh"] and task.landing == ()


def task_of(*given: str):
    """What is asked of the gates of the weakest edit."""
    walk = build(resolve(composed(*given, "granularity=neuron"))).edits["edited"].strength
    return walk.edits[0].gates.task


def landing_of(*given: str):
    """What takes the concept's place."""
    return task_of(*given).landing


@pytest.mark.parametrize("concept", ["nudity", "church", "van_gogh"])
def test_a_strength_is_chosen_by_what_was_asked_of_the_gates(concept: str):
    """Measured from another prompt than that in the concept's place, most of the way seems left though all is gone."""
    asked = ["edit.beyond=0.75", "edit.early=1.5"]
    walk = build(resolve(composed(f"concept={concept}", "granularity=neuron", *asked))).edits["edited"].strength
    found, chosen = walk.edits[0].gates.task, walk.task
    assert (chosen.beyond, chosen.power) == (found.beyond, found.power) == (0.75, 1.5)
    assert len(chosen.landing) == len(found.landing) == (11 if concept == "van_gogh" else 1)
    for one, other in zip(chosen.landing, found.landing, strict=True):
        assert isinstance(one, Nearest) == isinstance(other, Nearest) == (concept == "church")
        pairs = zip(one.each, other.each, strict=True) if isinstance(one, Nearest) else [(one, other)]
        assert all(a.prompt == b.prompt and not seeds_of(a) & seeds_of(b) for a, b in pairs)
    scored = build(resolve(composed(f"concept={concept}", *ERASE))).edits["edited"].strength.task
    assert (scored.beyond, scored.power, scored.landing) == (0, 0, ())


def seeds_of(latents) -> set[int]:
    return {seed for part in latents.parts for seed in part.seeds}


def test_each_strength_begins_where_the_one_before_ended():
    walk = build(resolve(composed("concept=church", "edit=joint"))).edits["edited"].strength
    gates = [edit.gates for edit in walk.edits]
    assert gates[0].start is None and [each.steps for each in gates] == [120] + 10 * [60]
    assert [each.strength for each in gates] == [0.03, 0.0424, 0.06, 0.0849, 0.12, 0.173, 0.25, 0.354, 0.5, 0.707, 1.0]
    for number, each in enumerate(gates[1:], 1):  # and nothing begins at one that is between two others
        assert each.start is gates[number - 2 + number % 2]


def test_between_two_strengths_there_is_a_third():
    assert with_between([0.5]) == [0.5] and with_between([]) == []
    assert with_between([0.1, 0.4, 0.5]) == [0.1, 0.2, 0.4, 0.447, 0.5]
    near = with_between([0.1, 0.10001])
    assert len(near) == 3 and near == sorted(set(near))


@pytest.mark.parametrize(
    "keep, middle, tried, taken",
    [
        (0.9, (0.0, 0.95), [1, 2, 4], 2),  # 4 harms too much, 2 erases and keeps
        (0.9, (0.05, 1.0), [1, 2, 4], 2),  # 2 leaves a twentieth, 4 costs a fifth
        (0.9, (0.3, 1.0), [1, 2, 4], 4),
        (0.7, (0.0, 1.0), [1, 4], 4),  # 4 keeps as wished: nothing else is tried
    ],
)
def test_what_harms_too_much_leads_to_a_strength_in_between(keep, middle, tried, taken, tmp_path, monkeypatch):
    told = {0: (1.0, 1.0), 1: middle, 2: (0.0, 0.8), 3: (0.0, 0.7), 4: (0.0, 0.6)}
    found = walked(told, 0.0, keep, tmp_path, monkeypatch)
    assert [row["strength"] for row in found["tried"]] == tried and found["tried"][found["chosen"]]["strength"] == taken


@pytest.mark.parametrize(
    "left, keep, taken",
    [
        ((0.9, None, 0.4, None, 0.1), 0.9, 16),
        ((0.9, None, 0.1, None, 0.1), 0.9, 4),  # of equals the weakest
        ((0.01, None, 0.01, None, 0.01), 0.9, 1),  # ten images of a thousand: no surety, and nothing to gain
        ((0.5, None, 0.4, None, 0.3), 1.0, 4),  # the strongest harms more than it gains
    ],
)
def test_where_no_strength_is_sure_all_are_tried(left, keep, taken, tmp_path, monkeypatch):
    """None between two is: they are for what erases and harms. The run takes what misses least, and says so."""
    told = {number: (rate, 1.0 if keep < 1 else 1 - number / 50 - (number == 4)) for number, rate in enumerate(left)}
    found = walked(told, 0.01, keep, tmp_path, monkeypatch)
    assert [row["strength"] for row in found["tried"]] == [1, 4, 16]
    row = found["tried"][found["chosen"]]
    assert row["strength"] == taken
    assert found["why"].startswith(f"none surely leaves at most 0.01 and keeps at least {keep:g}: this leaves")


def walked(told, erase, keep, folder, monkeypatch) -> dict:
    """What a walk over strengths 1, 2, 4, 8, 16 finds, whose images say this: number -> (rate, kept)."""
    walk = Strength(tuple("abcde"), (1, 2, 4, 8, 16), erase, keep, None, None, (), None, (), (), ())
    monkeypatch.setattr(Strength, "_predictions", lambda *_: {"left": 0.0, "moved": 0.0})

    def images(self, runtime, number):
        rate, kept = told[number]
        return {"rate": rate, "images": 1000, "kept": kept}

    monkeypatch.setattr(Strength, "_images", images)
    far = SimpleNamespace(concept=None, distances=lambda _: torch.ones(1))  # of the intact model from its target
    walk.make(SimpleNamespace(get=lambda _: far), folder, lambda *_: None)
    return walk.load(None, folder)


def test_the_concept_itself_is_not_to_stay():
    kept = prompts_to_keep(resolve(composed("concept=church", "edit=joint")))
    assert not [prompt for prompt in kept if "church" in prompt] and "a picture of a golf ball" in kept
    asked = resolve(composed("concept=church", "edit=joint", "edit.retain=[church,golf ball,A Photo of a  Church]"))
    assert prompts_to_keep(asked) == ["golf ball"]
    nameless = {"golf ball": ["concept=custom", "concept.prompt=a golf ball"]}
    nameless["Van Gogh"] = ["concept=van_gogh", "concept.label=null"]
    for name, given in nameless.items():
        walk = build(resolve(composed(*given, "granularity=neuron"))).edits["edited"].strength
        for task in (walk.edits[0].gates.task, walk.task):
            assert len(task.retained) == 15 and not [each.prompt for each in task.retained if name in each.prompt]


def test_what_is_to_stay_counts_once():
    """A prompt that is named twice, and the concept's base prompt, which is to stay as well."""
    task = task_of("concept=nudity", "edit.retain=[a photo of a person,a dog,a dog]")
    assert [each.prompt for each in task.retained] == ["a photo of a person", "a dog"]


def test_a_strength_is_chosen_at_whole_trajectories():
    """Though the scores be of one step of each: a single point of each prompt could not tell what moves."""
    walk = build(resolve(composed("concept=church", "noisy_latents.independent=true"))).edits["edited"].strength
    for task in (walk.edits[0].gates.task, walk.task):
        assert not any(each.independent for each in (*task.latents, *task.retained))
    assert walk.task.scores.scores.latents.independent


def test_instead_needs_no_validation_prompts():
    config = composed("concept=church", "edit.instead=a photo of a person")
    del config["concept"]["validation_prompts"]
    assert resolve(config)["concept"]["validation_prompts"] == ["a photo of a church"]


@pytest.mark.parametrize("given", [ERASE, ["edit=none", "objective=amplify"]], ids=["walk", "noised"])
def test_explicit_images_that_only_chose_are_not_left_behind(given: list[str], tmp_path: Path):
    """Those of the walk, and those that are noised for scores: nobody looks at them but a judge, or nobody at all."""
    small = [each for each in SMALL if not each.startswith("concept") and (given is ERASE or "edit." not in each)]
    asked = ["concept=nudity", "evaluation.explicit=dropped", "granularity=head", *small]
    run(composed(*FAST, f"runtime.cache={tmp_path / 'cache'}", *asked, *given), tmp_path / "run")
    explicit = [
        file.parent
        for file in (tmp_path / "cache" / "images").glob("*/entry.json")
        if json.loads(file.read_text())["inputs"]["of"]["redacted"] == "dropped"
    ]
    prompts = {prompt for place in explicit for prompt in prompts_of(place)}
    assert ("a picture of a naked person" if given is ERASE else "naked person") in prompts
    for place in explicit:
        for file in place.glob("*.png"):
            assert (np.asarray(Image.open(file)) == 128).all(), "an explicit image stayed"


def prompts_of(place: Path) -> list[str]:
    return json.loads((place / "entry.json").read_text())["inputs"]["of"]["prompts"]
