"""LoRA layers and single files of checkpoints, damaged and hostile: model.lora, and model.path with model.config."""

import json
import pickle
import struct
import zipfile
from pathlib import Path

from tests.fuzzing.files import UNET, Evil, _pipeline, hostile, safetensors

LONGER = f"unet.{UNET}.lora_A.weight"


def _lora(path: Path) -> list[str]:
    return [f"model.lora=['{path}']"]


def _tensors(shapes: dict[str, list[int]], value: float = 0.0, **metadata: str) -> bytes:
    """A safetensors file whose fp32 tensors hold one value."""
    head: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return safetensors(head, struct.pack("<f", value) * (at // 4))


def _width() -> int:
    """The features of the layer that the LoRA files name."""
    with open(_pipeline() / "unet" / "diffusion_pytorch_model.safetensors", "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(head[f"{UNET}.weight"]["shape"][1])


def _pair(rank: int = 1, width: int | None = None, name: str = f"unet.{UNET}") -> dict[str, list[int]]:
    width = width or _width()
    return {f"{name}.lora_A.weight": [rank, width], f"{name}.lora_B.weight": [width, rank]}


# LoRA layers


@hostile("loras")
def pickle_named_lora(place, rng):
    (place / "x.safetensors").write_bytes(pickle.dumps({LONGER: Evil(place / "ran")}))
    return _lora(place / "x.safetensors")


@hostile("loras")
def zip_named_lora(place, rng):
    with zipfile.ZipFile(place / "x.safetensors", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil(place / "ran")))
    return _lora(place / "x.safetensors")


@hostile("loras")
def truncated_lora(place, rng):
    whole = _tensors(_pair())
    (place / "x.safetensors").write_bytes(whole[: rng.choice([0, 5, 8, 60, len(whole) - 1])])
    return _lora(place / "x.safetensors")


@hostile("loras")
def lora_of_another_shape(place, rng):
    shapes = rng.choice([_pair(width=3), _pair(rank=0), {LONGER: [1, _width()]}, {LONGER: [_width()]}, {LONGER: []}])
    (place / "x.safetensors").write_bytes(_tensors(shapes, 0.5))
    return _lora(place / "x.safetensors")


@hostile("loras")
def unequal_ranks(place, rng):
    shapes = _pair()
    shapes[f"unet.{UNET}.lora_B.weight"] = [_width(), 3]
    (place / "x.safetensors").write_bytes(_tensors(shapes, 0.5))
    return _lora(place / "x.safetensors")


@hostile("loras")
def lora_of_nan(place, rng):
    (place / "x.safetensors").write_bytes(_tensors(_pair(), rng.choice([float("nan"), float("inf"), 3e38])))
    return _lora(place / "x.safetensors")


@hostile("loras")
def lora_of_nowhere(place, rng):
    names = ["unet.nowhere.to_q", "transformer.x", "lora_unet_x", "text_encoder.x", "unet.mid_block", "a.lora"]
    (place / "x.safetensors").write_bytes(_tensors(_pair(name=rng.choice(names), width=4)))
    return _lora(place / "x.safetensors")


@hostile("loras")
def odd_settings_of_peft(place, rng):
    odd = ["{", "[]", "3", '{"unet.r": "x"}', '{"unet.rank_pattern": 3}', '{"unet.target_modules": {"a": 1}}', "null"]
    odd += ['{"unet.r": 0}', '{"unet.lora_alpha": null, "unet.r": -1}', '{"unet.peft_type": "evil"}']
    (place / "x.safetensors").write_bytes(_tensors(_pair(), lora_adapter_metadata=rng.choice(odd)))
    return _lora(place / "x.safetensors")


@hostile("loras")
def no_lora_file(place, rng):
    (place / "w.safetensors").write_bytes(_tensors({"conv_in.weight": [1]}))
    wrong = [str(place), str(place / "w.safetensors"), "absent.safetensors", "notes.txt", "a/b/../c", "link", ""]
    return [f"model.lora=['{rng.choice(wrong)}']"]


@hostile("loras")
def odd_scale(place, rng):
    (place / "x.safetensors").write_bytes(_tensors(_pair(), 0.5))
    return [*_lora(place / "x.safetensors"), f"model.lora_scale={rng.choice(['x', '1e9', 'nan', '0', '-100', '[1]'])}"]


# Single files


def _single(path: Path, config: object = None) -> list[str]:
    return ["model=local", f"model.path='{path}'", f"model.config='{config or _pipeline()}'", "model.judge=null"]


def _converted() -> dict[str, list[int]]:
    """Names by which diffusers takes a file for Stable Diffusion 1."""
    return {
        "model.diffusion_model.input_blocks.0.0.weight": [32, 4, 3, 3],
        "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": [32, 32],
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": [10, 32],
        "first_stage_model.decoder.conv_in.weight": [8, 4, 3, 3],
    }


@hostile("singles")
def pickle_named_checkpoint(place, rng):
    (place / "x.safetensors").write_bytes(pickle.dumps({"state_dict": Evil(place / "ran")}))
    return _single(place / "x.safetensors")


@hostile("singles")
def old_checkpoint(place, rng):
    file = place / rng.choice(["x.ckpt", "x.pt", "x.bin", "x.pth", "x"])
    file.write_bytes(pickle.dumps({"state_dict": Evil(place / "ran")}))
    return _single(file)


@hostile("singles")
def truncated_checkpoint(place, rng):
    whole = _tensors(_converted())
    (place / "x.safetensors").write_bytes(whole[: rng.choice([0, 5, 8, 60, len(whole) - 1])])
    return _single(place / "x.safetensors")


@hostile("singles")
def part_of_a_checkpoint(place, rng):
    shapes = _converted()
    kept = rng.sample(sorted(shapes), rng.choice([1, 2, 4]))
    (place / "x.safetensors").write_bytes(_tensors({name: shapes[name] for name in kept}))
    return _single(place / "x.safetensors")


@hostile("singles")
def names_of_nobody(place, rng):
    names = ["a", "conv_in.weight", "model.diffusion_model.x", "unet.x", "\u202e", "../x", "a" * 3000]
    (place / "x.safetensors").write_bytes(_tensors({rng.choice(names): [1]}))
    return _single(place / "x.safetensors")


@hostile("singles")
def folder_named_checkpoint(place, rng):
    (place / "x.safetensors").mkdir()
    return _single(place / "x.safetensors")


@hostile("singles")
def odd_config(place, rng):
    (place / "x.safetensors").write_bytes(_tensors(_converted()))
    (place / "code").mkdir()
    (place / "code" / "model_index.json").write_text('{"_class_name": ["evil", "Evil"], "unet": ["evil", "Evil"]}')
    (place / "code" / "evil.py").write_text(f"open({str(place / 'ran')!r}, 'w')\nclass Evil: pass\n")
    wrong = [place / "code", place / "x.safetensors", "absent", "notes.txt", ".", "a/b"]
    return _single(place / "x.safetensors", rng.choice(wrong))


@hostile("singles")
def without_config(place, rng):
    (place / "x.safetensors").write_bytes(_tensors(_converted()))
    return ["model=local", f"model.path='{place / 'x.safetensors'}'", "model.judge=null"]
