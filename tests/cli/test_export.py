"""`python -m cad_exp export`: from a finished run to a checkpoint and a LoRA that plain diffusers reads; the hub."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

import cad_exp
from cad_exp.__main__ import main
from cad_exp.interventions.edit import Edit
from cad_exp.reporting.results import signed
from tests import warm
from tests.cli.test_cli import ROOT
from tests.pipeline.test_erased import erased
from tests.pipeline.test_experiment import fast

SMALL = ("concept=church", "granularity=neuron", "edit.ratio=0.01", "evaluation=none")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose edit is of a few neurons; do not write into it."""
    folder = tmp_path_factory.mktemp("run")
    fast(folder, *SMALL)
    return folder


@pytest.fixture
def own(run, tmp_path) -> Path:
    """A copy of the run, to damage."""
    return Path(shutil.copytree(run, tmp_path / "own"))


def said(capsys, *arguments: object) -> tuple[int, str]:
    """The exit code, and all that was said."""
    capsys.readouterr()
    code = main(["export", *map(str, arguments)])
    answer = capsys.readouterr()
    return code, answer.out + answer.err


def weights(target) -> dict[str, torch.Tensor]:
    denoiser = target.unet if hasattr(target, "unet") else target.denoiser
    return {name: value.detach().clone() for name, value in denoiser.state_dict().items()}


def edited(run: Path) -> dict[str, torch.Tensor]:
    """The weights of the run's edited model, by the library."""
    model = cad_exp.DiffusionModel.load("mini")
    with cad_exp.load_edit(model, run):
        return weights(model)


def same(one, other, **close) -> bool:
    return all(torch.allclose(one[name], value, **close) for name, value in other.items())


def test_a_checkpoint_is_the_edited_model_bit_for_bit(own, capsys):
    code, told = said(capsys, own, "to=checkpoint")
    assert code == 0 and told.strip().endswith(str(own / "checkpoint"))
    pipe = DiffusionPipeline.from_pretrained(own / "checkpoint", safety_checker=None)
    before = weights(cad_exp.DiffusionModel.load("mini"))
    assert same(weights(pipe), edited(own), rtol=0, atol=0) and not same(weights(pipe), before)


def test_a_lora_is_the_edited_model(run, tmp_path, capsys):
    code, told = said(capsys, run, "to=lora", f"path={tmp_path / 'x.safetensors'}")
    assert code == 0 and told.strip().endswith("x.safetensors") and "belongs over" not in told
    pipe = DiffusionPipeline.from_pretrained(ROOT / "cad_exp" / "mini" / "weights" / "pipeline", safety_checker=None)
    pipe.load_lora_weights(tmp_path / "x.safetensors")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert same(weights(pipe), edited(run), atol=1e-6)


def test_the_model_is_the_one_that_the_run_started_from(tmp_path, capsys):
    """Erased first: a checkpoint holds both edits, and the LoRA says where it belongs."""
    first = erased("edit=uce", "edit.tokens=all")
    fast(tmp_path / "run", *SMALL, first)
    code, _ = said(capsys, tmp_path / "run", "to=checkpoint", f"path={tmp_path / 'both'}")
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "both", safety_checker=None)
    model = cad_exp.DiffusionModel.load("mini")
    Edit.load(tmp_path / "run" / "erased.safetensors").apply(model)
    cad_exp.load_edit(model, tmp_path / "run")
    assert code == 0 and same(weights(pipe), weights(model), rtol=0, atol=0)
    code, told = said(capsys, tmp_path / "run", "to=lora", f"path={tmp_path / 'x.safetensors'}")
    assert code == 0 and "belongs over the model that the run started from" in told


def test_nothing_is_written_over(run, tmp_path, capsys):
    for to, path in (("checkpoint", tmp_path / "mine"), ("lora", tmp_path / "mine.safetensors")):
        path.write_text("mine") if to == "lora" else path.mkdir()
        code, told = said(capsys, run, f"to={to}", f"path={path}")
        assert code == 1 and f"already something at '{path}'" in told and "path=" in told
    (tmp_path / "link.safetensors").symlink_to("nowhere")
    assert said(capsys, run, "to=lora", f"path={tmp_path / 'link.safetensors'}")[0] == 1
    assert (tmp_path / "mine.safetensors").read_text() == "mine" and not list((tmp_path / "mine").iterdir())


def test_an_edit_of_activations_says_why_it_cannot_be_folded(own, capsys):
    edit = Edit({"mid_block": torch.tensor([0])}, "direction", vectors={"mid_block": torch.ones(1, 4)})
    edit.taps["mid_block"] = (1, 0)
    replaced(own, edit)
    for to in ("checkpoint", "lora"):
        code, told = said(capsys, own, f"to={to}")
        assert code == 1 and "changes activations" in told and "cad_exp.load_edit" in told and "to=hub" in told
    assert not (own / "checkpoint").exists() and not (own / "lora.safetensors").exists()


def test_an_edit_without_a_low_rank_is_told_of_the_checkpoint(own, capsys):
    module = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    weight = cad_exp.DiffusionModel.load("mini").denoiser.get_parameter(f"{module}.weight")
    replaced(own, Edit({}, replaced={f"{module}.weight": torch.randn_like(weight)}))
    code, told = said(capsys, own, "to=lora")
    assert code == 1 and "have a rank of up to" in told and "as a checkpoint" in told


def test_weights_of_another_model_are_refused_unless_asked_for(own, capsys):
    edit = Edit.load(own / "edit.safetensors")
    edit.meta["fingerprint"] = "0" * 24
    replaced(own, edit)
    code, told = said(capsys, own, "to=lora")
    assert code == 1 and "with the weights 000000" in told and not (own / "lora.safetensors").exists()
    assert said(capsys, own, "to=lora", "check=false")[0] == 0 and (own / "lora.safetensors").exists()


def replaced(folder: Path, edit: Edit) -> None:
    """Put another edit in the place of the run's own, as if the run had made it."""
    from cad_exp.utils.hashing import file_digest

    content = json.loads((folder / "results.json").read_text())
    content["run"]["files"]["edit.safetensors"] = file_digest(edit.save(folder / "edit.safetensors"))
    (folder / "results.json").write_text(json.dumps(signed(content)))


def test_the_hub_gets_the_edit_with_its_card(run, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("cad_exp.reporting.hub.push_edit", lambda *given, **more: asked.append((given, more)) or "URL")
    assert said(capsys, run, "to=hub", "repository=user/name", "private=true") == (0, "URL\n")
    assert asked == [((run, "user/name"), {"private": True})]


WRONG = {
    ("to=lorra",): "did you mean 'lora'?",
    ("too=lora",): "did you mean 'to'?",
    (): "to= is missing: give one of to=checkpoint, to=lora, to=hub",
    ("lora",): "write key=value, such as to=lora",
    ("to=lora", "to=hub"): "to is given twice",
    ("to=lora", "private=true"): "private= does not belong to to=lora",
    ("to=hub", "repository=name"): "give repository=owner/name",
    ("to=hub",): "give repository=owner/name",
    ("to=lora", "check=maybe"): "unknown value of check= 'maybe'",
    ("to=lora", "path="): "write key=value",
    ("--too", "lora"): "unknown flag '--too'",
}


@pytest.mark.parametrize("given", WRONG)
def test_a_wrong_setting_is_answered(given, run, capsys):
    code, told = said(capsys, run, *given)
    assert code == 2 and WRONG[given] in told and told.count("\n") == 1


def test_folders_that_hold_no_edit_are_answered(own, tmp_path, capsys):
    def content(**more) -> None:
        told = json.loads((own / "results.json").read_text())
        told["run"] |= more
        (own / "results.json").write_text(json.dumps(signed(told)))

    assert "there is no folder" in said(capsys, tmp_path / "absent", "to=lora")[1]
    assert "holds no results.json" in said(capsys, tmp_path, "to=lora")[1]
    assert "ends in .safetensors" in said(capsys, own, "to=lora", "path=x.bin")[1]
    content(complete=False)
    assert "is not finished" in said(capsys, own, "to=lora")[1]
    content(complete=True)
    (own / "edit.safetensors").write_bytes(b"other")
    assert "is not what the run wrote" in said(capsys, own, "to=hub", "repository=a/b")[1]
    content(files={}, task="probe")
    assert "made no edit (task=probe)" in said(capsys, own, "to=lora")[1]
    (own / "results.json").write_text("{")
    code, told = said(capsys, own, "to=lora")
    assert code == 1 and "cannot be read as results" in told


def test_wrong_values_are_answered_without_torch(run, tmp_path):
    code = "import sys; from cad_exp.__main__ import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for given in ([str(tmp_path), "to=lora"], [str(run), "to=lora", "path=x.bin"], [str(run), "to=hub"]):
        answer = warm.run(["export", *given], code=code, cwd=tmp_path)
        assert answer.stdout.strip() == "False" and answer.stderr.startswith("error: "), answer
