"""Weights that erasing methods publish, laid over the denoiser: every naming in use, and every way to be unfit."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from cad_exp.config.resolve import resolve
from cad_exp.models.content import model_content
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.models.state_dicts import overlay, overlay_tensors
from cad_exp.pipeline.identity import run_identity
from cad_exp.utils.errors import UserError


@pytest.fixture
def unet(tiny_folder):
    """A denoiser of one's own, to be changed."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(tiny_folder / "unet")


@pytest.fixture(scope="module")
def erased(tiny_folder):
    """The weights of a model that "another method" erased: every weight differs from the tiny model's."""
    from diffusers import UNet2DConditionModel

    state = UNet2DConditionModel.from_pretrained(tiny_folder / "unet").state_dict()
    generator = torch.Generator().manual_seed(1)
    return {name: x + 0.1 * torch.randn(x.shape, generator=generator) for name, x in state.items()}


def partial(state: dict, *words: str) -> dict:
    return {name: x for name, x in state.items() if any(word in name for word in words)}


def same(found: dict, wanted: dict) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def nested(state: dict) -> dict:
    """ESD's old way: the state dict of each trained module, by the module's name in the pipeline."""
    modules: dict = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        modules.setdefault(f"unet.{module}", {})[kind] = tensor
    return modules


CROSS = ("attn2.to_k.weight", "attn2.to_v.weight")
SAVED = {
    "esd-x": lambda s: (partial(s, "attn2"), partial(s, "attn2")),
    "esd-modules": lambda s: (nested(partial(s, "attn2")), partial(s, "attn2")),
    "uce": lambda s: (partial(s, *CROSS), partial(s, *CROSS)),
    "rece": lambda s: (s, s),
    "rece-nested": lambda s: ({"state_dict": s, "epoch": 3, "note": "x", "optimizer_states": [1]}, s),
    "conceptprune": lambda s: (s, s),
    "prefixed": lambda s: ({f"unet.{name}": x for name, x in s.items()}, s),
    "wrapped twice": lambda s: ({"model": {f"module.{name}": x for name, x in s.items()}}, s),
    "parameters": lambda s: ({name: torch.nn.Parameter(x) for name, x in s.items()}, s),
}


@pytest.mark.parametrize("kind", SAVED)
def test_public_key_names(kind, unet, erased, tmp_path):
    content, wanted = SAVED[kind](erased)
    torch.save(content, tmp_path / "weights.pt")
    assert same(overlay_tensors(unet, tmp_path / "weights.pt"), wanted)


def test_a_partial_safetensors_file_leaves_the_rest(unet, erased, tmp_path):
    before = {name: x.clone() for name, x in unet.state_dict().items()}
    wanted = partial(erased, *CROSS)
    save_file(wanted, tmp_path / "uce.safetensors")
    assert overlay(unet, tmp_path / "uce.safetensors") == len(wanted) > 0
    assert same(unet.state_dict(), before | wanted)


def ldm_names(unet) -> dict[str, str]:
    """CompVis name of each diffusers name, written down by position for the tiny layout (1 layer per block)."""
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}
    resnet |= {"time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
    places = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    places |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    places |= {"down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.attentions.0": "input_blocks.1.1"}
    places |= {"down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op"}
    places |= {"down_blocks.1.resnets.0": "input_blocks.3.0", "down_blocks.1.attentions.0": "input_blocks.3.1"}
    places |= {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1"}
    places |= {"mid_block.resnets.1": "middle_block.2", "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv"}
    for block in range(2):
        for layer in range(2):
            number = 2 * block + layer
            places[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{number}.0"
            places[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{number}.1"
    names = {}
    for name in unet.state_dict():
        place = max((p for p in places if name.startswith(p + ".")), key=len)
        rest = name.removeprefix(place)
        for ours, theirs in resnet.items() if ".resnets." in name else ():
            rest = rest.replace(f".{ours}.", f".{theirs}.")
        names[name] = f"model.diffusion_model.{places[place]}{rest}"
    return names


@pytest.mark.parametrize("words", [("",), ("attn2",), ("up_blocks.1.attentions.1",), ("mid_block.attentions",)])
def test_compvis_names(words, unet, erased, tmp_path):
    names, wanted = ldm_names(unet), partial(erased, *words)
    content = {names[name]: x for name, x in wanted.items()}
    content |= {"first_stage_model.encoder.conv_in.weight": torch.zeros(1), "model_ema.decay": torch.zeros(())}
    torch.save({"state_dict": content, "global_step": 470000}, tmp_path / "compvis.pt")
    assert same(overlay_tensors(unet, tmp_path / "compvis.pt"), wanted)


def test_compvis_names_without_their_prefix(unet, erased, tmp_path):
    names = ldm_names(unet)
    save_file({names[name].split(".", 2)[2]: x for name, x in erased.items()}, tmp_path / "unet.safetensors")
    assert same(overlay_tensors(unet, tmp_path / "unet.safetensors"), erased)


def test_a_file_is_known_by_its_content_not_by_its_suffix(unet, erased, tmp_path):
    save_file(erased, tmp_path / "weights.pt")
    torch.save(erased, tmp_path / "weights.safetensors")
    for name in ("weights.pt", "weights.safetensors"):
        assert same(overlay_tensors(unet, tmp_path / name), erased)


class Evil:
    def __reduce__(self):
        return (open, ("pwned", "w"))


K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
UNFIT = {
    "nothing fits": ({"a.b": torch.ones(2)}, "no weight in .* fits this denoiser"),
    "empty": ({"epoch": 3}, "no weight in .* fits"),
    "typo": ({K: torch.ones(32, 32), K.replace("to_k", "to_kk"): torch.ones(32, 32)}, f"did you mean '{K}'"),
    "shape": ({K: torch.ones(32, 768)}, r"\(32, 768\) in .* and \(32, 32\) in the model.*another model"),
    "nan": ({K: torch.full((32, 32), torch.nan)}, "not finite"),
    "lora": ({K.replace("weight", "lora_A.weight"): torch.ones(4, 32)}, "is a LoRA"),
    "text encoder": ({"unet": {K: torch.ones(32, 32)}, "text_encoder": {"x": torch.ones(1)}}, "the text_encoder"),
    "a tensor": (torch.ones(3), "holds no weights by their names"),
    "a pickle": ({"state_dict": {K: torch.ones(32, 32)}, "callbacks": Evil()}, "could run code and is not opened"),
    "unknown compvis": (
        {f"model.diffusion_model.{name}": torch.ones(32) for name in ("input_blocks.1.1.norm.weight", "x")},
        "1 unknown names, the first is 'model.diffusion_model.x'",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_does_not_fit_changes_nothing(kind, unet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = UNFIT[kind]
    before = {name: x.clone() for name, x in unet.state_dict().items()}
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=message):
        overlay(unet, tmp_path / "weights.pt")
    assert same(unet.state_dict(), before) and not (tmp_path / "pwned").exists()


def test_files_that_are_no_weights(unet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask.pkl").write_bytes(pickle.dumps(Evil()))  # ConceptPrune's masks are bare pickles
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html>")
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04half a file")
    for name, message in {
        "mask.pkl": "could run code",
        "page.safetensors": "no safetensors or torch file",
        "half.pt": "damaged",
        "absent.pt": "no weights file",
        ".": "is a folder",
    }.items():
        with pytest.raises(UserError, match=message):
            overlay_tensors(unet, tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_weights_take_the_models_type(unet, erased, tmp_path):
    save_file(erased, tmp_path / "fp32.safetensors")
    found = overlay_tensors(unet.to(torch.bfloat16), tmp_path / "fp32.safetensors")
    assert same(found, {name: x.to(torch.bfloat16) for name, x in erased.items()})
    torch.save({K: torch.full((32, 32), 1e6)}, tmp_path / "large.pt")
    with pytest.raises(UserError, match="not finite as float16"):
        overlay_tensors(unet.to(torch.float16), tmp_path / "large.pt")


def test_the_identity_holds_the_weights(tiny_folder, erased, tmp_path):
    settings = {"path": str(tiny_folder), "revision": None, "edits": [], "weights": None}
    plain = model_content(settings)
    settings["weights"] = str(tmp_path / "weights.pt")
    with pytest.raises(UserError, match="no weights file"):
        model_content(settings)
    torch.save(erased, settings["weights"])
    first = model_content(settings)
    torch.save(partial(erased, "attn2"), settings["weights"])
    assert len({str(each) for each in (plain, first, model_content(settings))}) == 3


def config(folder, path, *overrides: str) -> dict:
    from tests.config.test_configs import composed

    few = [
        "noisy_latents.samples=1",
        "noisy_latents.steps=2",
        "evaluation=none",
        "tracking=disabled",
        "runtime.device=cpu",
    ]
    few += ["model=local", f"model.path={path}", "judge=none", "model.steps=2"]
    few += ["estimator=first_order", "objective=projection"]
    return composed("concept=church", "edit=erase", "edit.ratio=0.3", f"runtime.cache={folder}", *few, *overrides)


def test_an_exported_edit_laid_over_is_the_edited_model(tiny_folder, tmp_path):
    """One run erases; its denoiser, laid over the intact model, gives a second run the same model bit for bit."""
    from cad_exp.interventions.edit import Edit
    from cad_exp.pipeline.run import run
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.pipeline.tasks.attribute import build
    from tests.pictures import undrawn

    with undrawn():
        run(config(tmp_path / "cache", tiny_folder), tmp_path / "first")
    intact = DiffusionModel.load(tiny_folder, device="cpu")
    edit = Edit.load(tmp_path / "first" / "edit.safetensors")
    exported = edit.export(intact, tmp_path / "church-free")
    file = exported / "unet" / "diffusion_pytorch_model.safetensors"
    again = config(tmp_path / "cache", tiny_folder, f"model.weights={file}")
    assert run_identity(again) != run_identity(config(tmp_path / "cache", tiny_folder))
    with undrawn():
        run(again, tmp_path / "second")
    resolved = resolve(again)
    laid = Runtime(resolved["runtime"], tmp_path / "cache").get(build(resolved).model)
    with edit.apply(intact):
        assert same(laid.denoiser.state_dict(), intact.denoiser.state_dict())
        assert laid.fingerprint() == intact.fingerprint()
    scores = [(tmp_path / name / "attribution.safetensors").read_bytes() for name in ("first", "second")]
    assert scores[0] != scores[1]  # the erased model was attributed, not the intact one out of the cache
