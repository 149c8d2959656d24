"""The training recipe, one command per stage: `python -m cad_exp.mini STAGE`.

Every stage is seeded, caches what it made in the work folder, and continues where it stopped when it is called again.
"""

import argparse
import sys
from pathlib import Path

from cad_exp.config.arguments import Parser, WrongFlag
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError

STAGES = {
    "draw": "draw the pictures of all four splits",
    "clip": "tokenizer and CLIP, whose text tower becomes the text encoder",
    "judge": "the classifier of object, style and nudity",
    "reference": "the judge's features of drawings, by which images outside the world are told",
    "autoencoder": "the KL autoencoder (and the perceptual network that trains it)",
    "decoder": "train the decoder on, under a frozen encoder (any time later; latents stay valid)",
    "latents": "encode the generator's pictures and all captions",
    "denoiser": "the UNet of mini; writes the pipeline's folder at every checkpoint",
    "transformer": "the transformer of mini_dit, likewise",
    "export": "write the folder of mini from the checkpoints as they are now",
    "export_dit": "write the folder of mini_dit, likewise",
    "card": "measure everything and write the model card",
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed arguments. WrongFlag for a wrong one."""
    parser = Parser("python -m cad_exp.mini", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="stage")
    for name, text in STAGES.items():
        stage = stages.add_parser(name, help=text, description=text)
        stage.add_argument("--work", type=Path, default=Path("outputs/mini"), help="cache of draws and checkpoints")
        stage.add_argument("--out", type=Path, default=None, help="where the weights go (default: into the package)")
        stage.add_argument("--steps", type=int, default=None, help="training steps (default: the recipe's)")
        stage.add_argument("--count", type=int, default=None, help="pictures per split (default: the recipe's)")
        stage.add_argument("--threads", type=int, default=None, help="CPU threads")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: 0, 1 for an error, 2 for a wrong flag."""
    process.begin()
    try:
        train(parse(arguments))
    except UserError as error:
        console.error(str(error))
        return process.MISUSED if isinstance(error, WrongFlag) else process.FAILED
    return 0


def train(given: argparse.Namespace) -> None:
    """Run the stage that the parsed arguments name."""
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    options = {k: v for k, v in (("steps", given.steps), ("out", given.out), ("count", given.count)) if v is not None}
    if given.stage == "draw":
        from cad_exp.mini.data import SPLITS, draws

        for split in SPLITS:
            print(f"{split}: {len(draws(split, given.work, given.count))} pictures", flush=True)
    elif given.stage == "clip":
        from cad_exp.mini import clip

        clip.run(given.work, **options)
    elif given.stage == "judge":
        from cad_exp.mini import judge_network

        judge_network.run(given.work, **options)
    elif given.stage == "reference":
        from cad_exp.mini import reference

        reference.run(**{k: v for k, v in options.items() if k != "steps"})
    elif given.stage == "autoencoder":
        from cad_exp.mini import autoencoder

        autoencoder.run(given.work, **options)
    elif given.stage == "decoder":
        from cad_exp.mini import autoencoder

        autoencoder.refine(given.work, **options)
    elif given.stage == "latents":
        from cad_exp.mini import pairs

        pairs.latents(given.work, given.count)
    elif given.stage == "denoiser":
        from cad_exp.mini import denoiser

        denoiser.run(given.work, **options)
    elif given.stage == "transformer":
        from cad_exp.mini import transformer

        transformer.run(given.work, **options)
    elif given.stage == "export":
        from cad_exp.mini import denoiser

        denoiser.export(given.work, **{k: v for k, v in options.items() if k == "out"})
    elif given.stage == "export_dit":
        from cad_exp.mini import transformer

        transformer.export(given.work, **{k: v for k, v in options.items() if k == "out"})
    else:
        from cad_exp.mini import card

        card.run(given.work)


if __name__ == "__main__":
    sys.exit(process.run(main))
