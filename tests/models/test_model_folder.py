"""Model folders as they are: what of them is read, loaded, converted, refused; and that identity says the same."""

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLImg2ImgPipeline

from cad_exp.cli import memory
from cad_exp.config.resolve import resolve
from cad_exp.models import model_folder
from cad_exp.models.content import model_content
from cad_exp.models.families.stable_diffusion import text_alone
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.models.sources import MODELS, check_reachable, locate
from cad_exp.pipeline.preflight import check as ready
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed
from tests.conftest import _tokenizer
from tests.tiny import sdxl


def weights(folder: Path) -> str:
    return model_content({"path": str(folder), "revision": None})["weights"]


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny pipeline's folder."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def as_variant(folder: Path, name: str, *parts: str) -> Path:
    """Give the weights of some components a variant's name (of all, unless told)."""
    for part in parts or ("unet", "vae", "text_encoder"):
        [file] = (folder / part).glob("*.safetensors")
        file.rename(file.with_suffix(f".{name}.safetensors"))
    return folder


def image(folder: Path) -> bytes:
    return DiffusionModel.load(folder, device="cpu").generate(["church"], [0], steps=1).tobytes()


@pytest.mark.parametrize("parts", [(), ("unet",)])
def test_variants_are_loaded_where_there_is_nothing_else(parts, folder, tiny_folder):
    plain = image(tiny_folder)
    as_variant(folder, "fp16", *parts)
    model_folder.check(folder)
    assert model_folder.variant(folder) == "fp16" and image(folder) == plain
    if not parts:
        [file] = (folder / "vae").glob("*.fp16.safetensors")
        file.rename(file.with_name(file.name.replace("fp16", "bf16")))
        with pytest.raises(UserError, match=r"several variants \(bf16, fp16"):
            model_folder.check(folder)


@pytest.mark.parametrize("size", [None, 0, "8", [8], [8, 8, 8], True])
def test_a_network_without_a_size_asks_for_one(size, folder):
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": size}))
    with pytest.raises(UserError, match="does not say for which size.*model.resolution"):
        model_folder.check(folder)
    model_folder.check(folder, 16)


def test_weights_without_a_variant_go_first(folder, tiny_folder):
    before = weights(folder)
    other = next((folder / "unet").glob("*.safetensors")).with_suffix(".fp16.safetensors")
    other.write_bytes(b"never read")
    assert model_folder.variant(folder) is None and image(folder) == image(tiny_folder) and weights(folder) == before


def test_shards_and_their_index(folder, tiny_folder):
    """A model in shards, whole and as a variant: loaded, identified by every shard, refused without one."""
    plain = image(tiny_folder)
    model = DiffusionModel.load(folder, device="cpu")
    for variant in (None, "fp16"):
        shutil.rmtree(folder / "unet")
        model.denoiser.save_pretrained(folder / "unet", max_shard_size="100KB", variant=variant)
        shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
        assert len(shards) > 2 and image(folder) == plain and set(shards) < set(model_folder.files(folder))
        model_folder.check(folder)
        shards[1].unlink()
        with pytest.raises(UserError, match=f"incomplete: .*{shards[1].name}' is missing"):
            model_folder.check(folder)


def test_what_is_read_is_what_identifies(folder, tmp_path):
    """Every file that loading opens is in the list, and each of the list counts; nothing else does."""
    listed = {file.relative_to(folder).as_posix() for file in model_folder.files(folder)}
    expected = {"model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"}
    expected |= {"scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"}
    assert expected < listed and {"unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"} < listed
    whole = set(listed)
    for name in sorted(whole):  # without a file of the list the model is another one, or cannot be loaded
        (folder / name).rename(tmp_path / "aside")
        with pytest.raises(UserError) if name == "model_index.json" else no_error():
            assert name not in {file.relative_to(folder).as_posix() for file in model_folder.files(folder)}
        (tmp_path / "aside").rename(folder / name)
    before = weights(folder)
    for name in sorted(whole):
        held = (folder / name).read_bytes()
        changed = held.replace(b"{", b"{ ", 1) if name.endswith(".json") else held + b"\n"
        (folder / name).write_bytes(changed)
        assert weights(folder) != before, name
        (folder / name).write_bytes(held)
    assert weights(folder) == before
    for name in (
        "notes.txt",
        "README.md",
        ".DS_Store",
        "unet/._config.json",
        "safety_checker/model.safetensors",
        "x/y.bin",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not read")
    for name in ("unet/diffusion_pytorch_model.bin", "unet/diffusion_flax_model.msgpack", "text_encoder/model.onnx"):
        (folder / name).write_text("not read")
    assert weights(folder) == before and image(folder)


def no_error():
    from contextlib import nullcontext

    return nullcontext()


def test_files_that_are_opened_are_listed(folder, monkeypatch):
    """Watched while it loads: Python's own opening of files, and safetensors' opening of weights."""
    import sys

    opened, watching = set(), [True]

    def watch(event: str, arguments: tuple) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(str(folder)):
            opened.add(Path(str(arguments[0])))

    sys.addaudithook(watch)
    try:
        DiffusionModel.load(folder, device="cpu")
    finally:
        watching.clear()
    assert len(opened) > 4 and opened <= set(model_folder.files(folder))


def test_a_linked_component_counts(folder, tmp_path):
    """Folders that are links are read by the loader; of embedded models nothing changes."""
    (folder / "unet").rename(tmp_path / "elsewhere")
    (folder / "unet").symlink_to(tmp_path / "elsewhere")
    before = weights(folder)
    config = tmp_path / "elsewhere" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert weights(folder) != before and weights(MODELS.get("mini").folder) == weights("mini")


def test_a_home_folder_is_found(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert weights("~/model") == weights("model") == weights("./model/") == weights(folder)
    ready(resolve(composed("model=local", "model.path='~/model'", "judge=none", "concept=church")))


def test_a_file_that_is_not_there_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("weights/x.safetensors", "weights/X.CKPT", "weights/x.pt"):
        for ask in (locate, lambda path: check_reachable(path, None)):
            with pytest.raises(UserError, match=f"no file '{path}'.*model.weights=FILE"):
                ask(path)
    for path in ("a b/c", "models/my:model", "owner/"):
        with pytest.raises(UserError, match="no model folder"):
            locate(path)
    assert locate("owner/name-v1.5") is None


HARM = {
    "names no pipeline": lambda folder: (folder / "model_index.json").write_text("{}"),
    "cannot be read": lambda folder: (folder / "model_index.json").write_text("{"),
    "does not describe a model": lambda folder: (folder / "model_index.json").write_text("[1]"),
    "names 'vae', which is not there": lambda folder: shutil.rmtree(folder / "vae"),
    "'unet' holds no weights": lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").unlink(),
    "git lfs pull": lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1"
    ),
    "takes 9 channels where its latents have 4": lambda folder: change(folder, in_channels=9),
    "config.json' cannot be read": lambda folder: (folder / "unet" / "config.json").write_bytes(b"\xff{"),
}


def change(folder: Path, **more) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | more))


@pytest.mark.parametrize("said", sorted(HARM))
def test_a_broken_folder_is_one_sentence_before_the_work(said, folder):
    HARM[said](folder)
    config = resolve(composed("model=local", f"model.path={folder}", "judge=none", "concept=church"))
    with pytest.raises(UserError) as error:
        ready(config)
    assert said in str(error.value) and "\n" not in str(error.value)


class Evil:
    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return open, (str(self.place), "w")


def test_a_pickle_that_would_run_code_is_refused_without_another_word(folder, tmp_path, recwarn):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol=4))
    with pytest.raises(UserError, match="cannot load the model"):
        image(folder)
    assert not recwarn.list and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "kind", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionPAGPipeline"]
)
def test_a_pipeline_for_another_task_gives_its_text_to_image_pipeline(kind, tiny_folder, folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))
    model_folder.check(folder)
    own, other = (DiffusionModel.load(place, device="cpu", steps=2) for place in (tiny_folder, folder))
    assert type(other.pipe) is StableDiffusionPipeline and other.pipe is other.family.pipe
    assert np.array_equal(own.generate(["church"], [0]), other.generate(["church"], [0]))
    assert DiffusionModel.load(folder, device="cpu", precision="bf16").dtype == torch.bfloat16


def test_another_familys_image_to_image_pipeline(tmp_path):
    pipe = sdxl(_tokenizer(tmp_path))
    other = StableDiffusionXLImg2ImgPipeline.from_pipe(pipe)
    model = DiffusionModel(other, steps=1, resolution=16)
    assert type(model.pipe) is type(pipe)
    assert np.array_equal(model.generate(["a"], [0]), DiffusionModel(pipe, steps=1, resolution=16).generate(["a"], [0]))


def test_images_that_are_not_square_are_refused_or_asked_to_be(folder, capsys):
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": [8, 12]}))
    for refuse in (lambda: DiffusionModel.load(folder, device="cpu"), lambda: model_folder.check(folder)):
        with pytest.raises(UserError, match="images of 16 x 24 pixels .*give model.resolution=16"):
            refuse()
    assert memory.main(["model=local", f"model.path={folder}"]) == 2 and "16 x 24" in capsys.readouterr().err
    model_folder.check(folder, 16)
    assert DiffusionModel.load(folder, device="cpu", resolution=16).generate(["a"], [0], steps=1).shape == (
        1,
        16,
        16,
        3,
    )
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": [8, 8]}))
    assert DiffusionModel.load(folder, device="cpu").resolution == 16


def test_networks_that_ask_for_more_than_text_are_refused(tiny_pipe):
    for more in ({"num_class_embeds": 10}, {"encoder_hid_dim_type": "image_proj"}, {"class_embed_type": "timestep"}):
        assert not text_alone(SimpleNamespace(config=SimpleNamespace(**{**tiny_pipe.unet.config, **more})))
    assert text_alone(tiny_pipe.unet)
