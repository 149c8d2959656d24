"""Hookpoints: the places of a network whose activations are looked at, found by class, not by a model's name.

A place is called by its module: "up_blocks.0.attentions.1". The noisy latent itself is a place too, called
`noisy_latent`: what a probe reads there, the network did not have to work out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from cad_exp.interventions.gating import INPUT, OUTPUT, Tap
from cad_exp.interventions.networks import is_text
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations import NOISY_LATENT
from cad_exp.utils.errors import UserError, closest

# kind -> what it is; a config asks for kinds, for names, or for patterns of names
KINDS = {
    NOISY_LATENT: "the input x_t",
    "embedding": "the first convolution, or the embedded patches",
    "stage": "a whole down, middle or up block of a UNet",
    "residual": "a residual block of convolutions",
    "block": "an attention block of a UNet, or a block of a transformer",
    "attention": "what an attention adds",
    "feed-forward": "what a feed-forward block adds",
    "text": "a layer of a text encoder",
}
_CLASSES = {
    "ResnetBlock2D": "residual",
    "Transformer2DModel": "block",
    "BasicTransformerBlock": "block",  # of a transformer without stages: PixArt
    "JointTransformerBlock": "block",
    "FluxTransformerBlock": "block",
    "FluxSingleTransformerBlock": "block",
    "Attention": "attention",
    "FluxAttention": "attention",
    "FeedForward": "feed-forward",
}
AUTO = "auto"  # in place of hookpoints: the one of `usual_hookpoint`
_TEXT = ("CLIPEncoderLayer", "T5Block")
_TOKENS_LAST = ("JointTransformerBlock", "FluxTransformerBlock", "FluxSingleTransformerBlock")  # (text, image)


@dataclass(frozen=True)
class Hookpoint:
    """One place: its name (the module's), its kind, and the activation there."""

    name: str
    kind: str
    tap: Tap | None = None  # None: the noisy latent


def find_hookpoints(model: DiffusionModel) -> list[Hookpoint]:
    """Return every hookpoint of a model, in the order of its forward pass: text encoders, noisy latent, denoiser."""
    found = [Hookpoint(name, "text", Tap(name, OUTPUT)) for name in _text_layers(model)]
    found.append(Hookpoint(NOISY_LATENT, NOISY_LATENT))
    staged = hasattr(model.denoiser, "mid_block")
    for name, module in _in_order(model.denoiser):
        kind = _kind(name, module, staged)
        if kind is not None:
            found.append(Hookpoint(name, kind, _tap(name, module)))
    return found


def usual_hookpoint(model: DiffusionModel) -> Hookpoint:
    """Return the place that is looked at first: a UNet's last attention block in its first up stage with attention.

    Revelio reads most there (2411.16725); of a transformer it is the block in the middle.
    """
    blocks = [each for each in find_hookpoints(model) if each.kind == "block"]
    if not blocks:
        raise UserError("this model has no attention blocks: name a hookpoint")
    upper = [each for each in blocks if each.name.startswith("up_blocks.")]
    if not upper:
        return blocks[len(blocks) // 2]
    stage = ".".join(upper[0].name.split(".")[:2])
    return [each for each in upper if each.name.startswith(f"{stage}.")][-1]


def prompt_attentions(model: DiffusionModel) -> list[Hookpoint]:
    """Return the attentions through which the prompt comes in: cross-attention, or joint attention of text and image.

    Raises:
        UserError: the network has no attention.
    """
    found = [each for each in find_hookpoints(model) if each.kind == "attention"]
    if not found:
        raise UserError("this model has no attention: name the places by granularity.hookpoints")
    return [each for each in found if _reads_prompt(model.denoiser.get_submodule(each.name))] or found


def _reads_prompt(attention: nn.Module) -> bool:
    joint = getattr(attention, "added_kv_proj_dim", None) is not None
    return joint or bool(getattr(attention, "is_cross_attention", False))


def choose_hookpoints(model: DiffusionModel, asked: Iterable[str]) -> list[Hookpoint]:
    """Return the hookpoints that are asked for by kind ("block"), name, or pattern ("up_blocks.*"), in network order.

    Raises:
        UserError: a kind, name or pattern that fits nothing, with the closest one that there is.
    """
    asked = [usual_hookpoint(model).name if word == AUTO else word for word in asked]
    every, kept = find_hookpoints(model), set()
    names = [each.name for each in every]
    for word in asked:
        fit = [each.name for each in every if word == each.kind or fnmatchcase(each.name, word)]
        if not fit:
            if any(sign in word for sign in "*?["):
                raise UserError(f"no hookpoint fits the pattern '{word}': {_every(model.name, names)}")
            if word in KINDS:
                raise UserError(f"this model has no hookpoint of kind '{word}' ({KINDS[word]})")
            raise UserError(_unknown(word, names, model.name))
        kept.update(fit)
    if not kept:
        raise UserError(f"no hookpoints: ask for at least one of {', '.join(KINDS)}, a name or a pattern")
    return [each for each in every if each.name in kept]


def _unknown(word: str, names: list[str], model: str) -> str:
    """Return what is wrong with a name that there is not, without the list of a thousand names."""
    close = closest(word, [*KINDS, *names])
    hint = f"did you mean '{close}'? " if close else ""
    some = ", ".join(names[:: max(1, len(names) // 3)][:3])
    kinds = f"Kinds are {', '.join(KINDS)}; names are such as {some}"
    return f"unknown hookpoint '{word}': {hint}{kinds}; {_every(model, names)}"


def _every(model: str, names: list[str]) -> str:
    return f"`python -m cad_exp hookpoints model={model}` lists all {len(names)}"


def _kind(name: str, module: nn.Module, staged: bool) -> str | None:
    top, _, rest = name.partition(".")
    if name in ("conv_in", "x_embedder") or type(module).__name__ == "PatchEmbed":
        return "embedding"
    if staged and (name == "mid_block" or (top in ("down_blocks", "up_blocks") and rest.isdigit())):
        return "stage"
    if name.endswith("ff_context"):  # it works on the text
        return None
    if staged and type(module).__name__ == "BasicTransformerBlock":  # the inner part of a UNet's attention block
        return None
    return _CLASSES.get(type(module).__name__)


def _tap(name: str, module: nn.Module) -> Tap:
    kind = type(module).__name__
    maps = isinstance(module, nn.Conv2d) or kind in ("ResnetBlock2D", "Transformer2DModel") or _is_stage(kind)
    return Tap(name, OUTPUT, axis=1 if maps else -1, index=-1 if kind in _TOKENS_LAST else 0)


def _is_stage(kind: str) -> bool:
    return "DownBlock" in kind or "UpBlock" in kind or "MidBlock" in kind


def _in_order(denoiser: nn.Module) -> Sequence[tuple[str, nn.Module]]:
    """Modules in the order in which they compute: a block's parts before the block, down before middle before up."""
    order = {"down_blocks": 1, "mid_block": 2, "up_blocks": 3}
    found: list[tuple[str, nn.Module]] = []

    def visit(name: str, module: nn.Module) -> None:
        children = list(module.named_children())
        if name == "":
            children.sort(key=lambda child: order.get(child[0], 0))
        elif {"resnets", "attentions"} <= {child for child, _ in children}:
            children = _woven(children)
        for child, part in children:
            visit(f"{name}.{child}" if name else child, part)
        if name:
            found.append((name, module))

    visit("", denoiser)
    return found


def _woven(children: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Return the parts of a UNet's stage as they take turns: a residual block, then an attention block, and so on."""
    parts: dict[str, Any] = dict(children)
    residual, attention = (list(parts.pop(key)) for key in ("resnets", "attentions"))
    late = len(residual) > len(attention)  # the middle block begins with a residual block of its own
    woven = [("resnets.0", residual.pop(0))] if late else []
    for number, (one, other) in enumerate(zip(residual, attention, strict=True)):
        turn = [(f"resnets.{number + late}", one), (f"attentions.{number}", other)]
        woven += reversed(turn) if late else turn
    return [*woven, *parts.items()]


def _text_layers(model: DiffusionModel) -> list[str]:
    """Names of the layers of text encoders, as `networks.Networks` calls them."""
    found = []
    for part in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        encoder = getattr(model.pipe, part, None)
        if isinstance(encoder, nn.Module):
            layers = [name for name, each in encoder.named_modules() if type(each).__name__ in _TEXT]
            found += [f"{part}:{name}" for name in layers]
    return found


def taps(hookpoints: Iterable[Hookpoint], text: bool) -> list[Tap]:
    """Return the activations to watch, of the text encoders or of the denoiser."""
    kept = [each.tap for each in hookpoints if each.tap is not None]
    return [tap for tap in kept if is_text(tap.module) == text]


__all__ = [
    "AUTO",
    "INPUT",
    "KINDS",
    "NOISY_LATENT",
    "Hookpoint",
    "choose_hookpoints",
    "find_hookpoints",
    "taps",
    "usual_hookpoint",
]
