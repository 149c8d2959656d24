"""The help text: what to type, every group with its options, the values that are often changed."""

import re
from pathlib import Path

from cad_exp.config.options import GROUPS, options

HEAD = """\
Which components of a text-to-image diffusion model make a concept, and which suppress it?

  python -m cad_exp concept=nudity granularity=neuron                 one run, on any machine
  python -m cad_exp -m concept=church,tench granularity=head,neuron   a sweep: every combination
  python -m cad_exp concept=nudity model=sd14                         Stable Diffusion 1.4, on a GPU
  python -m cad_exp -m experiment=fidelity                            a whole study, from its config
  python -m cad_exp task=probe                                        what each layer knows at each timestep
  python -m cad_exp task=sae                                          which sparse features a layer has
  python -m cad_exp latents FOLDER 17                                 a page for any latent of such a run
  python -m cad_exp task=analyse analysis=class_overlap               one look at what a model represents
  python -m cad_exp search --help                                     search for the best edit
  python -m cad_exp tables FOLDER                                     the results of a sweep as one table
  python -m cad_exp report FOLDER                                     report.html of a run or a sweep, made again
  python -m cad_exp shared FOLDER                                     components that the concepts of a sweep share
  python -m cad_exp export FOLDER to=lora                             a run's edit for others: to=checkpoint, lora, hub
  python -m cad_exp plugins                                           every class and option, and where it comes from
  python -m cad_exp cache                                             what finished stages occupy; --prune removes them

Give group=option for the groups below, and group.key=value for single values. * marks the default."""
TAIL = """\
Values that are often changed (docs/configuration.md explains every one):
  seed=1                       another seed for everything
  edit.erase=0.05              how much of the concept may stay (edit.keep=0.95: how much of all else must)
  edit=erase edit.ratio=0.05   switch off this share of the components, by their scores
  evaluation.samples=16        images per prompt
  model.steps=25               sampling steps of generated images
  model.erased=['edit=uce']    erase the model first, and take the erased one as unedited (docs/guides/erased_models.md)
  tracking.mode=disabled       offline, online or disabled
  runtime.device=cpu           auto, cuda, mps or cpu
  hydra.run.dir=FOLDER         where the run's files go (default: outputs/)

Other flags:
  --cfg job                    show the whole configuration and stop
  --plan                       show the resolved configuration and which stages would be made, and stop
  --config-dir FOLDER          add your own options: FOLDER/concept/mine.yaml gives concept=mine
  -m, --multirun               a sweep over the values that commas separate
  hydra/launcher=workers       with -m: jobs side by side (workers, submitit, slurm, cluster: docs/guides/sweeps.md)
  --hydra-help                 everything that Hydra itself can do"""


def help_text(folders: list[Path]) -> str:
    """Return the whole answer to --help."""
    defaults = dict(
        re.findall(r"^  - (\w+): (\w+)$", (folders[0] / "config.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    )
    own = sorted(
        {path.name for folder in folders[1:] if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
        - {*GROUPS, "hydra"}
    )
    parts = [HEAD]
    for group, meaning in {**GROUPS, **dict.fromkeys(own, "your own")}.items():
        lines = [f"{group}: {meaning}"]
        for option, comment in options(group, folders).items():
            lines.append(f"  {'*' if defaults.get(group) == option else ' '} {option:<18} {comment}".rstrip())
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, TAIL])
