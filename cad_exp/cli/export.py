"""The command `python -m cad_exp export`: the edit of a finished run as a checkpoint, as LoRA layers, or on the hub."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from cad_exp.config.arguments import Parser, WrongFlag, named_path
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError, choose

HELP = """\
Writes the edit of a finished run in a form that needs no cad_exp, or shares it.

  python -m cad_exp export outputs/RUN to=checkpoint                  the edited model: a diffusers folder
  python -m cad_exp export outputs/RUN to=checkpoint path=church-free into a new folder of your choice
  python -m cad_exp export outputs/RUN to=lora path=x.safetensors     layers for pipe.load_lora_weights
  python -m cad_exp export outputs/RUN to=hub repository=owner/name   the edit and its card, for cad_exp.load_edit

Without path= they go into the run's folder, as checkpoint/ and lora.safetensors. Nothing is written over.
A checkpoint holds any edit of weights. A LoRA holds those of low rank: some neurons, heads or prompts, not all at once.
Edits of latents and directions change activations, no weights: only the hub takes them.

  check=false      also where the model's weights are not those for which the edit was made
  private=true     with to=hub: a new repository is not public"""
SETTINGS = {  # of every form, beside `to`
    "checkpoint": ("path", "check"),
    "lora": ("path", "check"),
    "hub": ("repository", "private"),
}
KEYS = ("to", "path", "check", "repository", "private")
SWITCHES = {"true": True, "false": False}


def parser() -> Parser:
    """Return what reads the command line."""
    made = Parser("python -m cad_exp export", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.settings = KEYS
    made.add_argument("folder", type=named_path, help="of a finished run")
    made.add_argument("settings", nargs="*", metavar="key=value", help="to=checkpoint, to=lora or to=hub, and others")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: 0, 1 for a folder or an edit that cannot be exported, 2 for a wrong setting."""
    try:
        given = parser().parse_intermixed_args(arguments)
        console.say(write(given.folder.expanduser(), read(given.settings)))
    except UserError as error:
        console.error(str(error))
        return process.MISUSED if isinstance(error, WrongFlag) else process.FAILED
    return 0


def read(settings: list[str]) -> dict[str, str]:
    """Return the settings by their names. WrongFlag for one that is not known, is given twice or does not belong."""
    found: dict[str, str] = {}
    for item in settings:
        key, equals, value = item.partition("=")
        if not equals or not value:
            raise WrongFlag(f"'{item}' is no setting: write key=value, such as to=lora")
        _known(key, KEYS, "setting")
        if key in found:
            raise WrongFlag(f"{key} is given twice: leave one out")
        found[key] = value
    if "to" not in found:
        raise WrongFlag(f"to= is missing: give one of {', '.join(f'to={name}' for name in SETTINGS)}")
    own = SETTINGS[_known(found["to"], SETTINGS, "form")]
    if other := [key for key in found if key not in ("to", *own)]:
        raise WrongFlag(f"{other[0]}= does not belong to to={found['to']}, which has {' and '.join(own)}")
    for key in ("check", "private"):
        if key in found:
            _known(found[key].lower(), SWITCHES, f"value of {key}=")
    return found


def write(folder: Path, asked: dict[str, str]) -> str:
    """Export the edit of the run in a folder; returns where it is."""
    from cad_exp.pipeline import export

    if asked["to"] == "hub":
        return _push(folder, asked)
    run = export.finished(folder)
    path = export.place(asked["to"], run, asked.get("path"))
    console.quiet_libraries()
    written = export.export(asked["to"], run, path, SWITCHES[asked.get("check", "true").lower()])
    if asked["to"] == "lora" and not run.plain:
        console.say("the LoRA belongs over the model that the run started from: its weights, LoRA layers and edits")
    return str(written)


def _push(folder: Path, asked: dict[str, str]) -> str:
    from cad_exp.models.sources import HUB_ID
    from cad_exp.pipeline import export

    if not HUB_ID.fullmatch(asked.get("repository", "")):
        raise WrongFlag("to=hub needs the id of a repository: give repository=owner/name")
    run = export.finished(folder)

    from cad_exp.reporting.hub import push_edit  # torch: only once all is known to be there

    return push_edit(run.folder, asked["repository"], private=SWITCHES[asked.get("private", "false").lower()])


def _known(name: str, names: Iterable[str], what: str) -> str:
    """Return the name if it is one of the names. WrongFlag with the closest one."""
    try:
        return choose(name, names, what)
    except UserError as error:
        raise WrongFlag(str(error)) from None
