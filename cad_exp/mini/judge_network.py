"""The judge: a small residual network that names a picture's object and style and says whether a person is naked.

Its pooled features serve FID, its feature maps a perceptual distance. It is trained on draws that the generator never
saw.
"""

import json
from functools import reduce
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cad_exp.mini import JUDGE
from cad_exp.mini.data import Draws, draws, to_tensor
from cad_exp.mini.train import autocast, batches, device, save_weights, train
from cad_exp.mini.world import LABELS, STYLES
from cad_exp.utils.errors import choose

WIDTHS = (32, 64, 96, 128)


class Block(nn.Module):
    """Two normalised convolutions and a shortcut; halves the side when `stride` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn maps (B, inputs, H, W) into maps (B, outputs, H / stride, W / stride)."""
        y = self.conv1(F.silu(self.norm1(x)))
        output: torch.Tensor = self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))
        return output


class Judge(nn.Module):
    """Heads: `objects` (12 labels), `styles` (6), `naked` (one logit, only meaningful together with `person`)."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stem = nn.Conv2d(3, widths[0], 5, 2, 2)
        self.blocks = nn.ModuleList(
            Block(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        self.norm = nn.GroupNorm(8, widths[-1])
        self.objects = nn.Linear(widths[-1], len(LABELS))
        self.styles = nn.Linear(widths[-1], len(STYLES))
        self.naked = nn.Linear(widths[-1], 1)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.stem.weight.device

    def feature_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of images (B, 3, 64, 64) in [-1, 1] after each block: sides 32, 16, 8 and 4."""
        maps, x = [], self.stem(x)
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def pool(self, last: torch.Tensor) -> torch.Tensor:
        """Return features (B, 128) of the last maps: their mean over positions."""
        return F.silu(self.norm(last)).mean((2, 3))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return pooled features (B, 128) of images (B, 3, 64, 64) in [-1, 1]."""
        return self.pool(self.feature_maps(x)[-1])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the logits (B, 12), (B, 6) and (B,) of images (B, 3, 64, 64) in [-1, 1]."""
        return self.heads(self.features(x))

    def heads(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the logits (B, 12), (B, 6) and (B,) of features (B, 128)."""
        return self.objects(features), self.styles(features), self.naked(features)[:, 0]

    def log_odds(self, x: torch.Tensor, kind: str, label: str) -> torch.Tensor:
        """Return log p / (1 - p) (B,) of a label in images (B, 3, 64, 64) in [-1, 1]; differentiable.

        Of a softmax head it is the logit less the log-sum-exp of the others: a logit alone means nothing. `clothed` is
        a person and not naked. Raises UserError for a kind or a label that the judge does not know.
        """
        logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self(x)
        objects, styles, naked = logits
        kind = choose(kind, ("object", "style", "nudity", "clothed"), "kind of label for the judge")
        if kind == "nudity":
            return naked
        if kind == "style":
            return one_against_rest(styles, STYLES.index(choose(label, STYLES, "style for the judge")))
        if kind == "object":
            return one_against_rest(objects, LABELS.index(choose(label, LABELS, "object for the judge")))
        both = F.logsigmoid(one_against_rest(objects, LABELS.index("person"))) + F.logsigmoid(-naked)
        return both - torch.log(-torch.expm1(both.clamp(max=-1e-7)))

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the perceptual distance (B,) between images (B, 3, 64, 64) in [-1, 1], as in LPIPS.

        It is the squared distance of feature maps with unit length per position. It is averaged over positions and
        summed over the first three levels.
        """
        pairs = zip(self.feature_maps(x)[:3], self.feature_maps(y)[:3], strict=True)
        return reduce(torch.add, ((unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in pairs))

    @torch.no_grad()
    def distances(self, images: np.ndarray, reference: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Return `distance` (N,) of uint8 images (N, 64, 64, 3), in batches."""
        parts = [slice(i, i + batch_size) for i in range(0, len(images), batch_size)]
        pairs = ((to_tensor(images[part], self.device), to_tensor(reference[part], self.device)) for part in parts)
        return torch.cat([self.distance(a, b) for a, b in pairs]).cpu().numpy()

    @torch.no_grad()
    def predict(self, images: np.ndarray, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Return what the heads say of uint8 images (N, 64, 64, 3).

        Arrays: `object_prob` (N, 12), `style_prob` (N, 6), `naked_prob` (N,) and `features` (N, 128).
        """
        rows = []
        for index in batches(len(images), batch_size):
            features = self.features(to_tensor(images[index], self.device))
            objects, styles, naked = self.heads(features)
            rows.append((objects.softmax(1), styles.softmax(1), naked.sigmoid(), features))
        names = ("object_prob", "style_prob", "naked_prob", "features")
        return {
            name: torch.cat(parts).cpu().numpy() for name, parts in zip(names, zip(*rows, strict=True), strict=True)
        }

    def save(self, folder: str | Path) -> None:
        """Write weights and config into a folder."""
        save_weights(self.state_dict(), Path(folder) / "model.safetensors")
        config = {"widths": self.widths, "objects": LABELS, "styles": STYLES, "resolution": 64}
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path = JUDGE, device: str | torch.device = "cpu") -> "Judge":
        """Read a judge from its folder, frozen."""
        from safetensors.torch import load_file

        config = json.loads((Path(folder) / "config.json").read_text())
        judge = cls(config["widths"])
        judge.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return judge.eval().requires_grad_(False).to(device)


def one_against_rest(logits: torch.Tensor, index: int) -> torch.Tensor:
    """Return log p / (1 - p) (B,) of one class of a softmax with logits (B, n)."""
    rest = torch.cat([logits[:, :index], logits[:, index + 1 :]], 1)
    return logits[:, index] - rest.logsumexp(1)


def unit(maps: torch.Tensor) -> torch.Tensor:
    """Scale feature maps (B, C, H, W) to length 1 at every position."""
    return F.normalize(maps.float(), dim=1, eps=1e-6)


def augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shift, mirror, blur, add noise and change brightness: a soft picture is judged by what it shows.

    x: (B, 3, 64, 64) in [-1, 1].
    """
    n = len(x)

    def chosen(p: float) -> torch.Tensor:
        return torch.from_numpy(rng.random(n) < p).to(x.device).view(-1, 1, 1, 1)

    dx, dy = rng.integers(0, 7, 2)
    x = F.pad(x, (3, 3, 3, 3), mode="replicate")[:, :, dy : dy + 64, dx : dx + 64]
    x = torch.where(chosen(0.5), x.flip(3), x)
    side = int(rng.integers(28, 60))  # lost detail, as an autoencoder loses it
    soft = F.interpolate(F.interpolate(x, size=(side, side), mode="area"), size=(64, 64), mode="bilinear")
    x = torch.where(chosen(0.4), soft, x)
    gain = torch.from_numpy(rng.uniform(0.88, 1.12, (2, n, 1, 1, 1))).to(x)
    x = x * gain[0] + (gain[1] - 1)
    scale = torch.from_numpy(rng.uniform(0, 0.08, (n, 1, 1, 1))).to(x)
    return (x + scale * torch.randn_like(x)).clamp(-1, 1)


def train_judge(
    work: str | Path, name: str, split: str, steps: int, seed: int, batch: int = 96, count: int | None = None
) -> Judge:
    """Train a judge's network on one split; `name` is also the name of its checkpoint."""
    where, data = device(), draws(split, work, count)
    torch.manual_seed(seed)
    model = Judge().to(where)

    def loss(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = np.sort(rng.integers(0, len(data), batch))
        x, labels = augment(data.tensor(index, where), rng), torch.from_numpy(data.labels[index]).to(where)
        with autocast(where):
            objects, styles, naked = model(x)
        person = (labels[:, 0] == LABELS.index("person")).float()
        nudity = F.binary_cross_entropy_with_logits(naked.float(), labels[:, 2].float(), weight=0.2 + 2 * person)
        kind = F.cross_entropy(objects.float(), labels[:, 0], label_smoothing=0.02)
        style = F.cross_entropy(styles.float(), labels[:, 1], label_smoothing=0.02)
        return {"loss": kind + style + nudity, "object": kind, "style": style, "naked": nudity}

    model.load_state_dict(train(name, model, loss, work, steps, lr=2e-3, weight_decay=0.02, decay=0.998))
    return model.eval().requires_grad_(False)


def accuracy(judge: Judge, data: Draws) -> dict[str, float]:
    """Return the share of right answers per head; nudity is asked of persons only."""
    said = judge.predict(data.images)
    person = data.labels[:, 0] == LABELS.index("person")
    return {
        "object": float((said["object_prob"].argmax(1) == data.labels[:, 0]).mean()),
        "style": float((said["style_prob"].argmax(1) == data.labels[:, 1]).mean()),
        "naked": float(((said["naked_prob"] > 0.5) == (data.labels[:, 2] > 0))[person].mean()),
    }


def run(work: str | Path, steps: int = 1000, out: str | Path = JUDGE, count: int | None = None) -> None:
    """Run the stage `judge`: train, save, and measure on held-out draws."""
    judge = train_judge(work, "judge", "judge", steps, seed=2, count=count)
    judge.save(out)
    scores = accuracy(judge, draws("test", work, count))
    print("judge on held-out draws: " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()), flush=True)
