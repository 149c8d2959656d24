"""Edits that travel: applied to a plain pipeline in one line, undone exactly, refused elsewhere; pushed with a card."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

import cad_exp
from cad_exp.interventions import load_edit as module
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.selection import select
from cad_exp.reporting.hub import push_edit
from cad_exp.reporting.results import Results
from cad_exp.utils.errors import UserError


@pytest.fixture
def pipe(tiny_folder):
    return StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)


@pytest.fixture
def folder(tiny_attribution, tmp_path) -> Path:
    """What a run leaves, as far as an upload reads it."""
    place = tmp_path / "run"
    edit = select(tiny_attribution, "neuron", sign="positive", ratio=0.2, scope="layer")
    edit.save(place / "edit.safetensors")
    config = {"concept": {"name": "nudity", "kind": "nudity", "prompt": "naked <b>|person"}}
    results = Results(place, {"config": config, "git": "abc", "versions": {"cad-exp": "0.1.0"}})
    shared = {"n": 64, "higher_is_better": False, "definition": {}, "changes": {}}
    for variant, value in {"unedited": 1.0, "edited": 0.25, "random": 0.9}.items():
        low, high = max(0.0, value - 0.125), min(1.0, value + 0.125)
        results.add({"name": "concept_rate", "variant": variant, "value": value, "low": low, "high": high, **shared})
    results.finish()
    return place


def state(pipe) -> dict:
    return {name: x.clone() for name, x in pipe.unet.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_an_edit_is_applied_in_one_line_and_undone_exactly(pipe, folder):
    before = state(pipe)
    for source in (folder, folder / "edit.safetensors", str(folder)):
        applied = cad_exp.load_edit(pipe, source)
        by_hand = StableDiffusionPipeline.from_pretrained(pipe.config._name_or_path, safety_checker=None)
        Edit.load(folder / "edit.safetensors").apply(by_hand)
        assert same(state(pipe), state(by_hand)) and not same(state(pipe), before)
        applied.undo()
        assert same(state(pipe), before)


def test_another_model_is_refused_unchanged(pipe, folder):
    with torch.no_grad():
        pipe.unet.conv_in.bias[0] += 1
    before = state(pipe)
    with pytest.raises(UserError, match="was made for 'tiny' with the weights .* check=False"):
        cad_exp.load_edit(pipe, folder)
    assert same(state(pipe), before)
    with cad_exp.load_edit(pipe, folder, check=False):
        assert not same(state(pipe), before)


def test_an_edit_made_in_half_precision_knows_its_model_in_full(pipe, folder, tmp_path):
    edit = Edit.load(folder / "edit.safetensors")
    edit.meta["fingerprint"] = module.fingerprint(pipe.unet, torch.bfloat16)
    edit.save(tmp_path / "half.safetensors")
    cad_exp.load_edit(pipe, tmp_path / "half.safetensors").undo()


def test_what_is_no_edit_is_one_sentence(pipe, tmp_path):
    for source, said in {
        tmp_path: "holds no edit.safetensors",
        "x.safetensors": "there is no edit",
        "a b": "no edit",
    }.items():
        with pytest.raises(UserError, match=said):
            cad_exp.load_edit(pipe, source)


class FakeHub:
    """Stands in for huggingface_hub.HfApi: keeps what is uploaded in a folder."""

    def __init__(self, place: Path):
        self.place, self.made = place, []

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> None:
        self.made.append((repository, private, exist_ok))

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> str:
        import shutil

        shutil.copytree(folder_path, self.place / repo_id)
        return f"hub/{repo_id}"


def test_an_upload_is_what_load_edit_downloads(pipe, folder, tmp_path, monkeypatch):
    hub = FakeHub(tmp_path / "hub")
    assert push_edit(folder, "user/no-nudity", private=True, api=hub) == "hub/user/no-nudity"
    assert hub.made == [("user/no-nudity", True, True)]
    card = (hub.place / "user/no-nudity" / "README.md").read_text()
    for said in (
        "| concept_rate | 1.000 [0.875, 1.000] | 0.250 [0.125, 0.375] | 0.900 [0.775, 1.000] | 64 |",
        'cad_exp.load_edit(pipe, "user/no-nudity")',
        "It is no safety filter",
        "arxiv.org/abs/2412.02542",
    ):
        assert said in card, card
    assert "| prompt | naked &lt;b>\\|person |" in card
    download = lambda repository, name, revision: str(hub.place / repository / name)  # noqa: E731
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    before = state(pipe)
    with cad_exp.load_edit(pipe, "user/no-nudity"):
        assert not same(state(pipe), before)
    assert same(state(pipe), before)


def test_an_edit_without_a_run_says_that_nothing_was_measured(folder, tmp_path):
    hub = FakeHub(tmp_path / "hub")
    push_edit(folder / "edit.safetensors", "user/name", api=hub)
    assert "nothing was measured here" in (hub.place / "user/name" / "README.md").read_text()


def test_a_wrong_id_and_a_hub_out_of_reach_are_one_sentence(folder):
    with pytest.raises(UserError, match="no id of the hub"):
        push_edit(folder, "name", api=None)

    class Away(FakeHub):
        def create_repo(self, *_: object, **__: object) -> None:
            raise OSError("no \n route")

    with pytest.raises(UserError, match="cannot be reached for 'user/name' .no route.: give the same command again"):
        push_edit(folder, "user/name", api=Away(folder))
