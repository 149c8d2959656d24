"""A small CLIP of the mini world. Its text tower is the pipeline's text encoder, both towers serve the CLIP score."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)
from transformers.utils import logging

from cad_exp.mini import CLIP
from cad_exp.mini.data import Draws, draws, to_tensor
from cad_exp.mini.judge_network import augment
from cad_exp.mini.tokenizer import MAX_LENGTH, build_tokenizer
from cad_exp.mini.train import autocast, batches, device, train
from cad_exp.mini.world import COLOURS, LABELS, STYLES, Scene, all_captions, captions

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor

WIDTH, PROJECTION = 128, 64


def build_clip(vocab_size: int, end: int, start: int) -> CLIPModel:
    """Build the untrained pair of towers; end, start: ids of the tokens around a prompt."""
    text = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=PROJECTION,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
    )
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=64,
        patch_size=8,
        projection_dim=PROJECTION,
    )
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=PROJECTION))


def scene_of(labels: Sequence[int] | np.ndarray) -> Scene:
    """Return the scene of labels (4,): object, style, naked, colour."""
    return Scene(int(labels[0]), int(labels[1]), bool(labels[2]), int(labels[3]))


class Truth:
    """Which captions are true of which scene: `table` (scenes, captions) bool over all scenes that there are."""

    def __init__(self) -> None:
        self.captions = all_captions()
        place = {caption: i for i, caption in enumerate(self.captions)}
        self.shape = (len(LABELS), len(STYLES), 2, len(COLOURS))
        self.table = torch.zeros(int(np.prod(self.shape)), len(self.captions), dtype=torch.bool)
        for row, labels in enumerate(np.ndindex(*self.shape)):
            self.table[row, [place[caption] for caption in captions(scene_of(labels))]] = True

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """Return the rows (B,) of the table for labels (B, 4)."""
        rows: np.ndarray = np.ravel_multi_index(labels.T, self.shape)
        return rows

    def pick(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw one true caption per scene: indices (B,)."""
        return np.array([rng.choice(np.flatnonzero(self.table[row].numpy())) for row in self.rows(labels)])


def text_tower(
    kind: type[CLIPTextModel | CLIPTextModelWithProjection] = CLIPTextModel,
) -> tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]:
    """Load tokenizer and text tower of the trained CLIP, which becomes the text encoder of the generators."""
    # The folder also holds the image tower: transformers would list each of its weights as unexpected.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tower = kind.from_pretrained(str(CLIP), local_files_only=True)
    return CLIPTokenizer.from_pretrained(str(CLIP), local_files_only=True), tower.eval().requires_grad_(False)


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> dict[str, torch.Tensor]:
    """Return token ids (B, MAX_LENGTH), padded as Stable Diffusion's pipeline pads them."""
    found: dict[str, torch.Tensor] = tokenizer(
        texts, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    )
    return found


def contrast(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Return the contrastive loss with soft targets: every true pair is a positive.

    logits, true: (images, captions).
    """
    wanted = true.float()
    by_image = -(F.log_softmax(logits, 1) * wanted / wanted.sum(1, keepdim=True).clamp(min=1)).sum(1).mean()
    by_text = -(F.log_softmax(logits, 0) * wanted / wanted.sum(0, keepdim=True).clamp(min=1)).sum(0).mean()
    return (by_image + by_text) / 2


def run(work: str | Path, steps: int = 1800, out: str | Path = CLIP, batch: int = 64, count: int | None = None) -> None:
    """Run the stage `clip`: tokenizer, training, an ordinary transformers folder, and zero-shot accuracy."""
    where, data, truth, out = device(), draws("clip", work, count), Truth(), Path(out)
    tokenizer = build_tokenizer(truth.captions, out)
    ids = tokens(tokenizer, truth.captions)["input_ids"].to(where)
    torch.manual_seed(3)
    model = build_clip(len(tokenizer), tokenizer.eos_token_id, tokenizer.bos_token_id).to(where)

    def loss(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = np.sort(rng.integers(0, len(data), batch))
        x, labels = augment(data.tensor(index, where), rng), data.labels[index]
        chosen = np.unique(truth.pick(labels, rng))
        true = truth.table[truth.rows(labels)][:, chosen].to(where)
        with autocast(where):
            image = model.vision_model(pixel_values=x).pooler_output
            text = model.text_model(input_ids=ids[chosen]).pooler_output
            image, text = model.visual_projection(image), model.text_projection(text)
        scale = model.logit_scale.clamp(max=4.6).exp()
        return {"loss": contrast(scale * F.normalize(image.float(), dim=1) @ F.normalize(text.float(), dim=1).T, true)}

    model.load_state_dict(train("clip", model, loss, work, steps, lr=1e-3, weight_decay=0.05, decay=0.998))
    model.eval().requires_grad_(False)
    model.save_pretrained(str(out))
    preprocessor().save_pretrained(str(out))
    scores = accuracy(model, tokenizer, draws("test", work, count))
    print("CLIP on held-out draws, zero-shot: " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()), flush=True)


def preprocessor() -> "CLIPImageProcessor":
    """Make the image processor that belongs to the model: 64 pixels, values to [-1, 1]."""
    from transformers import CLIPImageProcessor

    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=half, image_std=half
    )


class Clip:
    """The trained pair of towers, for scores: the cosine of `images` and `texts`."""

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, folder: str | Path = CLIP, device: str | torch.device = "cpu") -> "Clip":
        """Read model and tokenizer from a folder of transformers."""
        model = CLIPModel.from_pretrained(str(folder), local_files_only=True).eval().requires_grad_(False).to(device)
        return cls(model, CLIPTokenizer.from_pretrained(str(folder), local_files_only=True))

    @torch.no_grad()
    def images(self, images: np.ndarray, batch_size: int = 256) -> torch.Tensor:
        """Embed uint8 images (N, 64, 64, 3) as unit vectors (N, 64) on the CPU."""
        parts = (to_tensor(images[index], self.model.device) for index in batches(len(images), batch_size))
        return torch.cat([self.embed(x) for x in parts]).cpu()

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embed images (B, 3, 64, 64) in [-1, 1] as unit vectors (B, 64); differentiable."""
        return F.normalize(self.model.visual_projection(self.model.vision_model(pixel_values=x).pooler_output), dim=1)

    @torch.no_grad()
    def texts(self, prompts: list[str]) -> torch.Tensor:
        """Embed prompts as unit vectors (N, 64) on the CPU."""
        model, ids = self.model, tokens(self.tokenizer, prompts)["input_ids"]
        return F.normalize(
            model.text_projection(model.text_model(input_ids=ids.to(model.device)).pooler_output), dim=1
        ).cpu()


def accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, data: Draws) -> dict[str, float]:
    """Measure zero-shot accuracy: the nearest object name, and the nearest style name, to each held-out picture."""
    clip, labels = Clip(model, tokenizer), data.labels
    images = clip.images(data.images)
    named = labels[:, 0] < LABELS.index("nothing")
    objects = (images @ clip.texts([f"a photo of a {o}" for o in LABELS[:-1]]).T).argmax(1).numpy()
    bare = (images @ clip.texts(LABELS[:-1]).T).argmax(1).numpy()
    painted = labels[:, 1] > 0
    styles = 1 + (images @ clip.texts(STYLES[1:]).T).argmax(1).numpy()
    person = labels[:, 0] == LABELS.index("person")
    naked = (images @ clip.texts(["a photo of a person", "a photo of a naked person"]).T).argmax(1).numpy()
    return {
        "object": float((objects == labels[:, 0])[named].mean()),
        "bare noun": float((bare == labels[:, 0])[named].mean()),
        "style": float((styles == labels[:, 1])[painted].mean()),
        "naked": float((naked == labels[:, 2])[person].mean()),
    }
