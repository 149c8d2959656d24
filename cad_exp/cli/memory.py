"""What a model needs before it is downloaded: `python -m cad_exp memory model=sd14,sdxl granularity=neuron`.

Computed on the meta device, which has shapes and no data, from the models' true configs (cad_exp/models/denoisers):
  denoiser       parameters and buffers x bytes of the precision
  text, VAE      the same of the text encoders and the VAE; with runtime.offload=model only the largest of them, with
                 =sequential only the VAE or the largest layer, and only while no gradient is taken
  gradients      w weights are scored (the output projections whose kind is scored): 4 w bytes of gated fp32 weights,
                 4 w of gradients, and in half precision 2 w of gated copies to compute with; no optimiser
  activations    the peak of all other tensors alive in one forward and backward pass of one noisy latent, as the
                 dispatcher sees them come and go (attention as in flash kernels: queries, keys, values and output, no
                 matrix); times predictions of the objective per noisy latent (projection asks under two prompts), times
                 the batch
  total          the sum (offloaded: denoiser + the larger of text, VAE and gradients + activations); not in it: what
                 CUDA itself takes, workspaces of kernels, fragmentation
Generating images needs no gradients, and less per image. What lies in the machine's own memory has a table of its own
(memory_of_run): noisy latents, gates that edit=joint trains, interactions. On the GPU both take no more than
attribution: gates are trained on effective weights, as scores are, and a sketch keeps the same inputs.
"""

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cad_exp.cli import memory_of_activations, memory_of_run
from cad_exp.utils import console
from cad_exp.utils.errors import UserError, choose

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

GIB = 2**30
OFFLOADS = ("none", "model", "sequential")
CARDS = (24, 80)  # GiB
# Predictions that are in memory together for one noisy latent.
PREDICTIONS = {"erase": 1, "amplify": 1, "projection": 2, "guidance_norm": 2}
HELP = """\
What a model needs, computed without any weights: of a GPU for attribution, of the machine's own memory for a whole run;
on disk and in memory for activations.

  python -m cad_exp memory                                            every model that is known
  python -m cad_exp memory model=sd14,sdxl granularity=head runtime.score=chosen
  python -m cad_exp memory model=local model.path=FOLDER              a diffusers folder on this machine
  python -m cad_exp memory model=local model.path=x.safetensors model.config=FOLDER       a single file
  python -m cad_exp memory task=probe model=sd15 images.number=5000   activations that probes read
  python -m cad_exp memory task=sae model=sd15,sdxl tokens.positions=all    tokens that autoencoders learn from

Also: objective=projection  runtime.batch_size=4  runtime.precision=fp32  runtime.checkpointing=true
      runtime.offload=model  model.resolution=512
LoRA layers (model.lora) are added to the weights, and need no memory of their own."""


@dataclass
class Need:
    """Bytes that one model needs; `per_latent` is the activations' peak for one noisy latent of the objective."""

    name: str
    denoiser: int
    others: int
    weights: int  # how many weights are scored
    gradients: int
    per_latent: int
    batch: int
    offloaded: bool = False

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        working = self.gradients + self.per_latent * self.batch
        return self.denoiser + (max(self.others, working) if self.offloaded else self.others + working)

    def fits(self, gib: float) -> int:
        """Return the largest batch that a card of so many GiB holds; 0: not even one noisy latent."""
        beside = self.denoiser + self.gradients + (0 if self.offloaded else self.others)
        enough = self.denoiser + self.others <= gib * GIB
        return max(0, int((gib * GIB - beside) // self.per_latent)) if enough else 0


def need(name: str, config: dict[str, Any]) -> Need:
    """Return what the model of this name needs under a composed config. UserError for unknown names."""
    from cad_exp.attribution import meta

    runtime, model = config["runtime"], config["model"]
    choose(runtime["offload"], OFFLOADS, "runtime.offload")
    facts = meta.describe(name, model.get("path"), model.get("config"))
    precision = "bf16" if runtime["precision"] == "auto" else choose(runtime["precision"], meta.SIZES, "precision")
    denoiser, size = meta.denoiser(facts, precision), meta.SIZES[precision]
    if runtime["checkpointing"]:
        from cad_exp.models import activation_checkpointing

        activation_checkpointing.enable(denoiser)
    chosen = config["granularity"] if runtime["score"] == "chosen" else None
    scored = meta.scored(denoiser, chosen)
    weights = sum(denoiser.get_parameter(f"{module}.weight").numel() for module in scored)
    gradients = weights * (8 if precision == "fp32" else 8 + size)
    peak = meta.peak(denoiser, facts, scored, meta.latent(facts, model.get("resolution")))
    predictions = PREDICTIONS.get(config["objective"]["name"], 1)
    others, offloaded = meta.others(facts, runtime["offload"], size), runtime["offload"] != "none"
    batch, per_latent = runtime["batch_size"], peak * predictions
    return Need(name, meta.size_of(denoiser), others, weights, gradients, per_latent, batch, offloaded)


def show(needs: list[Need]) -> None:
    """Print the table on the terminal, in GiB."""
    from rich.table import Table

    table = Table(title="GPU memory for attribution, GiB")
    table.add_column("model", no_wrap=True)
    batches = sorted({1, *(each.batch for each in needs)})
    heads = [
        "denoiser",
        "text, VAE",
        "scored",
        "gradients",
        "per noisy latent",
        *(f"total, batch {n}" for n in batches),
    ]
    for head in (*heads, *(f"batch in {card}" for card in CARDS)):
        table.add_column(head, justify="right")
    for each in needs:
        totals = [replace(each, batch=n).total for n in batches]
        text = [f"{n / GIB:.2f}" for n in (each.denoiser, each.others, each.gradients, each.per_latent, *totals)]
        text.insert(2, f"{each.weights / 1e6:.1f} M")
        table.add_row(each.name, *text, *(str(each.fits(card)) for card in CARDS))
    console.console().print(table)


def _known() -> list[str]:
    """Return every model whose size is known."""
    from cad_exp.attribution import meta  # which loads torch: a wrong flag is answered without it

    return meta.names()


def _values(asked: "Override") -> list[str]:
    """Return what `model=mini` or `model=sd14,sd15` names."""
    return list(asked.sweep_string_iterator()) if asked.is_sweep_override() else [str(asked.value())]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, or 2 when the command is wrong."""
    from cad_exp.config import grammar, options
    from cad_exp.config.arguments import without_flags
    from cad_exp.pipeline.search.plan import composed

    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    try:
        own, given = without_flags(arguments, "python -m cad_exp memory")
        folders = [options.conf_folder(), *own]
        parsed = grammar.parse(given, folders)
        models = [item for item in parsed if item.key_or_group == "model" and not item.is_delete()]
        grammar.one_value_each([item for item in parsed if item not in models])
        names = _values(models[-1]) if models else _known()
        rest = [str(item.input_line) for item in parsed if item not in models]
        # A hub model's own config may be missing or its path open; sizes come from the facts, settings from any model.
        config = composed("config", ["objective=erase", "runtime.batch_size=1", *rest], folders)
        task = config["task"]["name"]
        if task in memory_of_activations.TASKS:
            configs = {name: composed("config", [f"model={name}", *rest], folders) for name in names}  # own steps
            sizes = {name: memory_of_activations.size(name, each) for name, each in configs.items()}
            memory_of_activations.show(task, sizes)
        elif task != "attribute":
            raise UserError(f"nothing tells what task={task} takes: give task=attribute, task=probe or task=sae")
        else:
            needs = [need(name, config) for name in names]
            whole = {name: composed("config", [f"model={name}", *rest], folders) for name in names}
            runs = {name: memory_of_run.held(each, folders[1:]) for name, each in whole.items()}
            show(needs)
            memory_of_run.show(runs)
    except UserError as error:
        console.error(str(error))
        return 2
    return 0
