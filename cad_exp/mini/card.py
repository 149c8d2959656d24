"""Measures the embedded laboratory and writes its model card, contact sheet and training curve."""

from __future__ import annotations

import csv
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.images import Share
from cad_exp.mini import CLIP, JUDGE, PIPELINE, PIPELINE_DIT, WEIGHTS
from cad_exp.mini.world import OBJECTS, STYLES
from cad_exp.utils.io import atomic, write_json

Row = dict[str, Any]  # prompt, judged, rate, low, high
HERE = Path(__file__).parent
IMAGES, SHOWN = 64, 4
STEPS, GUIDANCE = 12, 4.0  # the defaults of conf/model/mini.yaml and mini_dit.yaml
# model: (the training log of its denoiser, what its loss is, the sheet of its pictures)
MODELS = {
    "mini": ("denoiser.csv", "min-SNR weighted loss of mini", "contact_sheet.png"),
    "mini_dit": ("transformer.csv", "flow-matching loss of mini_dit", "contact_sheet_dit.png"),
}


def prompts() -> list[tuple[str, str, str]]:
    """Return (prompt, head, label) of everything that the generator is measured on."""
    rows = [(f"a photo of {'an' if name[0] in 'AEIOU' else 'a'} {name}", "object", name) for name in OBJECTS]
    rows += [(f"a photo in the style of {name}", "style", name) for name in STYLES[1:]]
    return rows + [("a photo of a person", "naked", "clothed"), ("a photo of a naked person", "naked", "naked")]


def generator(name: str) -> tuple[list[Row], np.ndarray]:
    """Return the share of each prompt's images that one model's judge reads as asked for, and the images.

    Rows are in the order of `prompts`; images are uint8 (prompts, IMAGES, 64, 64, 3).
    """
    from cad_exp.mini.judge_network import Judge
    from cad_exp.mini.world import LABELS
    from cad_exp.models.pipeline import DiffusionModel

    model, judge, rows, pictures = DiffusionModel.load(name, steps=STEPS, guidance=GUIDANCE), Judge.load(), [], []
    for number, (prompt, head, label) in enumerate(prompts()):
        images = model.generate([prompt] * IMAGES, range(9_000_000 + 1000 * number, 9_000_000 + 1000 * number + IMAGES))
        said = judge.predict(images)
        hit = {
            "object": said["object_prob"].argmax(1) == (LABELS.index(label) if label in LABELS else -1),
            "style": said["style_prob"].argmax(1) == (STYLES.index(label) if label in STYLES else -1),
            "naked": said["naked_prob"] > 0.5,
        }[head]
        value, low, high = estimated(Share(hit))
        rows.append(
            {"prompt": prompt, "judged": label if head != "naked" else "naked", "rate": value, "low": low, "high": high}
        )
        pictures.append(images)
        print(f"{name}: {prompt}: {value:.3f}", flush=True)
    return rows, np.stack(pictures)


def contact_sheet(pictures: np.ndarray, path: Path) -> None:
    """Draw a row per prompt with its first pictures, enlarged, in two columns with the prompts' names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, columns = [row[0] for row in prompts()], 2
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(12, lines * 1.12), facecolor="white")
    FigureCanvasAgg(figure)
    for number, (name, images) in enumerate(zip(names, pictures, strict=True)):
        column, line = divmod(number, lines)
        strip = np.concatenate(
            [np.pad(image, ((0, 0), (0, 4), (0, 0)), constant_values=255) for image in images[:SHOWN]], 1
        )
        axes = figure.add_axes((0.17 + 0.5 * column, 1 - (line + 0.97) / lines, 0.33, 0.94 / lines))
        axes.imshow(np.asarray(Image.fromarray(strip).resize((strip.shape[1] * 3, strip.shape[0] * 3), 0)))
        axes.set_axis_off()
        figure.text(
            0.165 + 0.5 * column,
            1 - (line + 0.5) / lines,
            textwrap.fill(name, 20),
            ha="right",
            va="center",
            fontsize=9.5,
        )
    with atomic(path) as draft:
        figure.savefig(draft, format="png", dpi=80)


def curve(work: Path, path: Path) -> None:
    """Draw the denoisers' training losses from their logs; without these an earlier picture stays."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    logs = [(work / log, loss) for log, loss, _ in MODELS.values()]
    if not all(log.exists() for log, _ in logs):
        return
    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (log, name) in zip(figure.subplots(1, len(logs)), logs, strict=True):
        with log.open() as file:
            steps, loss = np.array([(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]).T
        width = min(50, len(loss))
        mean = np.convolve(loss, np.ones(width) / width, "valid")
        axes.semilogy(steps, loss, color="#cbd5e1", linewidth=0.6, label="one batch")
        axes.semilogy(steps[width - 1 :], mean, color="#1d4ed8", label=f"mean of {width}")
        axes.set(xlabel="step", title=name)
        axes.legend(frameon=False)
    with atomic(path) as draft:
        figure.savefig(draft, format="png", dpi=110)


def held_out(work: Path) -> dict[str, dict[str, float]]:
    """Measure judge, CLIP and autoencoder on draws that none of them was trained on."""
    from diffusers import AutoencoderKL

    from cad_exp.mini import autoencoder, clip, judge_network
    from cad_exp.mini.data import draws

    data, towers = draws("test", work), clip.Clip.load()
    vae = AutoencoderKL.from_pretrained(str(PIPELINE / "vae"))
    network = judge_network.Judge.load()
    return {
        "judge": judge_network.accuracy(network, data),
        "clip": clip.accuracy(towers.model, towers.tokenizer, data),
        "autoencoder": autoencoder.report(vae.float(), network, data),
    }


def megabytes(folder: Path) -> float:
    """Return the size of a folder's files in megabytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def parameters(folder: Path) -> str:
    """Return the number of parameters in a folder's safetensors files, in millions, for a person."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())
    return f"{total / 1e6:.2f} M"


def run(work: str | Path) -> None:
    """Run the stage `card`: quality.json, MODEL_CARD.md, the contact sheets and curve.png beside the world."""
    work, rows = Path(work), {}
    for name, (_, _, sheet) in MODELS.items():
        rows[name], pictures = generator(name)
        contact_sheet(pictures, HERE / sheet)
    quality = {
        "images_per_prompt": IMAGES,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "generator": rows,
        "held_out": held_out(work),
    }
    write_json(HERE / "quality.json", quality)
    curve(work, HERE / "curve.png")
    sizes = {
        name: (parameters(folder), megabytes(folder))
        for name, folder in (
            ("UNet of mini", PIPELINE / "unet"),
            ("transformer of mini_dit", PIPELINE_DIT / "transformer"),
            ("autoencoder (a copy for each)", PIPELINE / "vae"),
            ("text encoder of mini", PIPELINE / "text_encoder"),
            ("text encoder of mini_dit (twice)", PIPELINE_DIT / "text_encoder"),
            ("judge", JUDGE),
            ("CLIP", CLIP),
        )
    }
    (HERE / "MODEL_CARD.md").write_text(card(quality, sizes, megabytes(WEIGHTS)))
    print(json.dumps(quality["held_out"], indent=1))


def card(quality: dict[str, Any], sizes: dict[str, tuple[str, float]], total: float) -> str:
    """Fill the measured numbers into the model card's template."""
    measured = quality["generator"]
    lines = []
    for rows in zip(*measured.values(), strict=True):
        shares = (f"{row['rate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in rows)
        lines.append(f"| {' | '.join((rows[0]['prompt'], rows[0]['judged'], *shares))} |")
    tests = [
        f"| {part}: {name} | {value:.4f} |"
        for part, found in quality["held_out"].items()
        for name, value in found.items()
    ]
    return (
        (HERE / "card_template.md")
        .read_text()
        .format(
            lines="\n".join(lines),
            parts="\n".join(f"| {name} | {count} | {size:.1f} MB |" for name, (count, size) in sizes.items()),
            tests="\n".join(tests),
            summary="\n".join(summary(name, rows) for name, rows in measured.items()),
            total=total,
            images=quality["images_per_prompt"],
            steps=quality["steps"],
            guidance=quality["guidance"],
        )
    )


def summary(name: str, rows: list[Row]) -> str:
    """Write one line on a model: its mean and worst object, mean and worst style."""
    rates = [[row["rate"] for row in rows if row["judged"] in names] for names in (OBJECTS, STYLES)]
    (objects, worst), (styles, least) = ((float(np.mean(each)), min(each)) for each in rates)
    return f"- `{name}`: objects mean {objects:.3f}, worst {worst:.3f}; styles mean {styles:.3f}, worst {least:.3f}."
