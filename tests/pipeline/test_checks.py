"""Runs that could only mislead are refused before any work: edits of nothing, nothing to look for, names with paths."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cad_exp
from cad_exp.config.compose import compose
from cad_exp.config.names import check_name
from cad_exp.config.resolve import resolve
from cad_exp.config.rules import FLAT
from cad_exp.data import vocabulary
from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation.labels import check_label
from cad_exp.pipeline import preflight
from cad_exp.utils.errors import UserError
from tests.cli.test_cli import cad
from tests.config.test_configs import composed


def resolved(*overrides: str) -> dict:
    return resolve(composed(*overrides))


# Names


@pytest.mark.parametrize(
    "name, why",
    [
        ("../../x", "slashes"),
        ("a\\b", "slashes"),
        (".hidden", "begins with a dot"),
        ("..", "begins with a dot"),
        ("a\nb", "control character"),
        ("a\x00b", "control character"),
        ("\x1b[31mred", "control character"),
        ("a\ud800", "control character"),
        (" a", "space"),
        ("é" * 51, "longer than 100 bytes"),
        ("", "is empty"),
        ("  ", "is empty"),
        (None, "is empty"),
    ],
)
def test_names_that_cannot_stand_in_a_path(name, why):
    with pytest.raises(UserError, match=why) as error:
        check_name(name, "concept.name")
    assert str(error.value).startswith("concept.name") and str(error.value).isprintable()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120))
@example("van_gogh")
@example("Église 教会 👩‍🎨")
def test_a_name_that_is_taken_is_one_plain_part_of_a_path(tmp_path_factory, name):
    try:
        taken = check_name(name, "concept.name")
    except UserError:
        return
    root = tmp_path_factory.mktemp("names")
    folder = root / f"{taken}-neuron-12345678"
    folder.mkdir()
    assert [place.name for place in root.iterdir()] == [folder.name] and folder.parent == root
    folder.rmdir()


@pytest.mark.parametrize("key, said", [("concept.name", "slashes"), ("granularity.name", "slashes|is unknown")])
def test_no_folder_is_made_for_a_refused_name(key, said, tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    answer = cad(f"{key}=../../../x", "tracking=disabled", folder=inside)
    assert answer.returncode in (1, 2) and "slashes" in answer.stderr and "Traceback" not in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert {place.name for place in tmp_path.rglob("*")} == {"a", "b"}
    with pytest.raises(UserError, match=said):
        resolved(f"{key}=../x")


# Edits


@pytest.mark.parametrize(
    "overrides, why",
    [
        (["edit.factor=1"], "edit.factor=1 leaves every component as it is"),
        (["edit.factor=1.0", "edit=amplify"], "edit.factor=1.0 leaves"),
        (["edit.factor=nan"], "edit.factor=nan is no number"),
        (["edit.factor=inf"], "edit.factor=inf is no number"),
        (["edit.sign=negative"], "edit=erase takes positive components, so edit.sign=negative .*edit=amplify"),
        (["edit=random", "edit.sign=negative"], "edit=random takes positive"),
        (["edit=amplify", "edit.sign=positive"], "edit=amplify takes negative components.*edit=erase"),
        (["edit=uce", "edit.sign=negative"], "edit=uce takes positive"),
        (["edit=none", "edit.sign=negative"], "edit=none takes no components"),
        (["edit.sign=up"], "edit.sign=up"),
        (["edit.ratio=much"], "edit.ratio=much is no number"),
        (["edit.count=0"], "edit.count=0 is out of range"),
        (["edit.ratio=0"], "edit.ratio=0 is out of range"),
        (["edit.ratio=-0.1"], "edit.ratio=-0.1 is out of range"),
        (["edit.ratio=1.5"], "edit.ratio=1.5 is out of range"),
        (["edit.ratio=0.1", "edit.count=3"], "both say how much"),
        (["edit.count=3", "granularity.scope=layer"], "not per layer"),
        (["edit=uce", "edit.guide=naked person"], "edit=uce has nothing to erase"),
        (["edit=esd", "edit.prompt='  '"], "edit=esd has nothing to erase"),
        (["model.erased=['edit=erase','edit.factor=1']"], "model.erased: edit.factor=1"),
    ],
)
def test_edits_of_nothing_are_refused(overrides, why):
    with pytest.raises(UserError, match=why):
        resolved("edit=erase", *overrides)


def test_ordinary_edits_pass():
    for edit in ("erase", "amplify", "none", "random", "magnitude", "uce", "esd", "cad_public"):
        first = resolved(f"edit={edit}")
        assert resolve(first) is first, "what is resolved is not resolved again"
    assert resolved("edit=erase", "edit.factor=-1", "edit.count=7")["edit"]["factor"] == -1


# Nothing to look for


@pytest.mark.parametrize(
    "prompt, base, why",
    [
        ("", "a", "concept.prompt is empty"),
        ("  ", "a", "concept.prompt is empty"),
        ("a  red\tball", " a red ball", "are both 'a red ball'"),
    ],
)
def test_nothing_to_look_for(prompt, base, why):
    config = composed("concept=custom", "concept.prompt=x")
    config["concept"] |= {"prompt": prompt, "base_prompt": base}
    with pytest.raises(UserError, match=why):
        resolve(config)


# Labels


def test_a_label_that_the_judge_does_not_know_is_refused():
    with pytest.raises(UserError, match="judge=mini knows no object 'Church': did you mean 'church'.*tench"):
        check_label(resolved("concept=church", "concept.label=Church"))
    with pytest.raises(UserError, match="did you mean 'cassette player'"):
        check_label(resolved("concept=church", "concept.label=casette_player"))
    with pytest.raises(UserError, match="knows no object 'teapot', and the run needs its answer"):
        check_label(resolved("concept=church", "concept.label=teapot", "objective=judge"))
    with pytest.raises(UserError, match="knows no style 'van Gogh': did you mean 'Van Gogh'"):
        check_label(resolved("concept=van_gogh", "concept.label=van Gogh"))
    with pytest.raises(UserError, match="needs concept.kind=object or style or nudity, not custom"):
        check_label(resolved("concept=custom", "concept.prompt=church", "concept.label=church"))
    with pytest.raises(UserError, match="did you mean 'church'.*1,000 ImageNet classes"):
        check_label(resolved("concept=church", "concept.label=Church", "judge=real"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["concept=church"],
        ["concept=nudity"],
        ["concept=van_gogh"],
        ["concept=church", "judge=real"],
        ["concept=nudity", "judge=real"],
        ["concept=custom", "concept.prompt=a red ball"],
        ["concept=church", "concept.label=null"],
        ["concept=church", "concept.label=''"],
        ["concept=church", "concept.label=teapot", "evaluation=none"],
        ["concept=church", "concept.label=teapot", "judge=none"],
        ["concept=church", "concept.label=teapot", "judge=real"],
    ],
)
def test_labels_that_nobody_has_to_know_pass(overrides):
    check_label(resolved(*overrides))


@pytest.mark.parametrize(
    "given, key",
    [
        ("+evaluation.fidelity.number=3", "evaluation.fidelity.rates is missing"),
        ("evaluation.fidelity=[1]", "is no group of settings: it has number, rates"),
    ],
)
def test_half_a_study_is_refused(given, key):
    with pytest.raises(UserError, match=key):
        resolved("evaluation=none", given)


@pytest.mark.parametrize(
    "given", ["seed=x", "seed=1.5", "seed=true", "seed=-1", "evaluation.seed=-1", "noisy_latents.seed=x"]
)
def test_a_seed_is_a_whole_number(given):
    with pytest.raises(UserError, match=f"{given} is (no|out of range).*a whole number of at least 0"):
        resolved(given)


def test_a_file_that_is_no_edit_is_refused_before_torch(tmp_path):
    """By its header: text, an empty file, a header that is too large, another kind of tensor file."""
    import torch

    from cad_exp.interventions.edit import Edit
    from cad_exp.utils.tensor_header import kind_of
    from cad_exp.utils.tensors import save_tensors

    Edit({"a": torch.tensor([1])}).save(tmp_path / "edit.safetensors")
    save_tensors(tmp_path / "noisy_latents.safetensors", "noisy_latents", {"x": torch.zeros(1)}, {})
    assert (
        kind_of(tmp_path / "edit.safetensors") == "edit"
        and kind_of(tmp_path / "noisy_latents.safetensors") == "noisy_latents"
    )
    (tmp_path / "text").write_text("hi")
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"\xff" * 64)
    for name in ("noisy_latents.safetensors", "text", "empty", "large"):
        with pytest.raises(UserError, match="model.edits=.* is damaged or no edit file"):
            preflight.check(resolved(f"model.edits=[{tmp_path / name}]"))


def test_a_label_that_is_no_slip_is_said(capsys):
    check_label(resolved("concept=church", "concept.label=teapot"))
    assert "judge=mini knows no object 'teapot', so there is no concept rate" in capsys.readouterr().out


# Words


def unknown(prompt: str) -> list[str]:
    return vocabulary.unknown(prompt, vocabulary.learned("mini"))


def test_words_that_the_embedded_models_never_learned(capsys):
    assert unknown("a photo of a church on a red background") == []
    assert unknown("A Teapot, by Van Gogh: a tea_pot!") == ["teapot", "tea", "pot"]
    config = resolved("concept=custom", "concept.prompt=a teapot")
    requests = [
        ImageRequest("concept", prompt, 0, "", "") for prompt in ("a teapot", "a church", "a red teapot", "a samovar")
    ]
    vocabulary.warn(config, requests)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "mini never learned 'teapot', 'samovar', so 3 of 5 prompts" in said
    vocabulary.warn(config | {"model": config["model"] | {"path": "somewhere/else"}}, requests)
    vocabulary.warn(resolved("concept=church"), requests[1:2])
    assert capsys.readouterr().out == ""


def test_the_shipped_concepts_are_of_words_that_mini_knows():
    for concept in ("church", "nudity", "van_gogh", "english_springer", "cassette_player"):
        own = resolved(f"concept={concept}")["concept"]
        for prompt in (own["prompt"], own["base_prompt"], *own["evaluation_prompts"]):
            assert unknown(prompt) == []


def test_every_learned_word_is_one_token_of_the_shipped_tokenizer():
    import json

    from cad_exp.mini import PIPELINE

    tokens = json.loads((PIPELINE / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert all(f"{word}</w>" in tokens for word in vocabulary.learned("mini") if re.fullmatch("[a-z]+", word))


# With the model


def test_prompts_that_only_the_model_finds_to_be_the_same(tiny_model):
    from cad_exp.pipeline.stages.noisy_latents import tell_apart

    tell_apart(tiny_model, "a church", "")
    for one, other in (("a church", "A  Church"), ("church " * 200 + "red", "church " * 200 + "blue")):
        with pytest.raises(UserError, match="as the same text"):
            tell_apart(tiny_model, one, other)


# An objective without what it asks


@pytest.mark.parametrize(
    "asked, said",
    [
        (["objective=judge", "judge=none"], "objective=judge needs a judge and there is none: choose judge=real or"),
        (["objective=clip", "model.judge=null"], "objective=clip needs a judge and there is none"),
        (["objective=contrast", "objective.of=clip", "judge=none"], "objective=contrast needs a judge"),
        (["objective=judge", "concept.label=null"], "objective=judge needs a label that the judge knows"),
    ],
)
def test_an_objective_that_asks_a_judge_is_refused_without_one(asked: list[str], said: str):
    with pytest.raises(UserError, match=re.escape(said)):
        preflight.graph_of(resolved("edit=erase", *asked))


@pytest.mark.parametrize(
    "asked, said",
    [
        (["objective=contrast"], "estimator.direction=denoising is not for objective=contrast"),
        (["objective=erase", "estimator.first_order=true"], "estimator.first_order=true sees nothing with"),
        (["objective=guidance_norm", "estimator.first_order=true"], "objective=guidance_norm: it is flat at"),
    ],
)
def test_patches_into_the_base_prompts_run_are_refused_where_they_say_nothing(asked: list[str], said: str):
    patching = ["granularity=head", "edit=erase", "estimator=activation_patching", "estimator.direction=denoising"]
    with pytest.raises(UserError, match=re.escape(said)):
        resolved(*patching, *asked)
    resolved(*patching, "objective=projection", "estimator.first_order=true")


def test_the_objectives_without_a_slope_are_those_whose_classes_say_so():
    from cad_exp.attribution.objectives import OBJECTIVES

    assert {name for name in OBJECTIVES if OBJECTIVES.get(name).flat_at_base} == set(FLAT)
    assert [name for name in OBJECTIVES if not OBJECTIVES.get(name).one_prompt] == ["contrast"]


@pytest.mark.parametrize(
    "asked, said",
    [
        (
            "model.weights={file}",
            "model.weights='{file}' is damaged, or no safetensors or torch file",
        ),
        ("model.edits=[{file}]", "model.edits='{file}' is damaged or no edit file: give the edit.safetensors of a run"),
        ("model.edits=[{folder}]", "model.edits='{folder}' is a folder and no edit file: give the edit.safetensors"),
    ],
)
def test_files_of_another_kind_are_refused_before_any_work(asked: str, said: str, tmp_path):
    file = tmp_path / "junk.safetensors"
    file.write_text("junk")
    with pytest.raises(UserError, match=re.escape(said.format(file=file, folder=tmp_path))):
        preflight.graph_of(resolved(asked.format(file=file, folder=tmp_path)))


def test_one_text_is_one_override_and_no_list_of_letters():
    assert compose("concept=church") == compose(["concept=church"])


@pytest.mark.parametrize("wrong", [None, [None], ["concept=church", 1], {"concept": "church"}])
def test_overrides_that_are_no_texts_are_named(wrong):
    with pytest.raises(UserError, match="list of texts such as 'concept=church', not"):
        compose(wrong)


@pytest.mark.parametrize(
    "wrong", ["concept=church,tench", "edit.strength=0.1,0.2", "seed=range(0,3)", "edit=hard_conrete,joint"]
)
def test_an_override_of_several_values_is_no_config(wrong: str):
    with pytest.raises(UserError, match=re.escape(f"'{wrong}' names several values: compose a config for each")):
        compose([wrong])
    with pytest.raises(UserError, match="one text with a comma stands in quotes"):
        compose(["concept=church", "concept.prompt=a red, round ball"])


def test_a_run_takes_a_config_and_no_overrides(tmp_path):
    with pytest.raises(UserError, match="cad_exp.run takes a config, not overrides"):
        cad_exp.run(["concept=church"], tmp_path)


def test_one_number_is_no_list_of_seeds():
    """It might be one seed, or so many."""
    with pytest.raises(UserError, match=re.escape("seeds=3 is no list: seeds=[3] is one trajectory, seeds=range(3)")):
        cad_exp.sample_trajectory(None, "church", seeds=3)


def test_a_name_is_a_text():
    with pytest.raises(UserError, match="None is no name of a granularity: there are weight, neuron"):
        cad_exp.make_granularity(None)


@pytest.mark.parametrize("wrong", [None, [None], 1])
def test_folders_that_are_no_paths_are_named(wrong):
    with pytest.raises(UserError, match="folders is a list of paths"):
        compose([], wrong)


def test_a_folder_of_options_may_be_a_text(tmp_path):
    (tmp_path / "concept").mkdir()
    (tmp_path / "concept" / "mine.yaml").write_text("defaults: [church, _self_]\nprompt: a chapel\n")
    for folders in (str(tmp_path), [str(tmp_path)], tmp_path):
        assert compose(["concept=mine"], folders)["concept"]["prompt"] == "a chapel"
