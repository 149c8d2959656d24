"""What a run was asked, in one sentence; and how it was made, so that anybody can make it again and cite it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cad_exp.config import commands, options, search_path
from cad_exp.reporting.html.source import Source
from cad_exp.reporting.wording import units
from cad_exp.utils.console import duration

PAPER = """@article{nguyen2024unveiling,
  title   = {Unveiling Concept Attribution in Diffusion Models},
  author  = {Nguyen, Quang H. and Phan, Hoang and Doan, Khoa D.},
  journal = {arXiv preprint arXiv:2412.02542},
  year    = {2024}
}"""
REPOSITORY = "@software{{cad_exp,\n  title   = {{cad_exp}},\n  version = {{{version}}},\n  note    = {{{note}}}\n}}"
GROUPS = {"concept": "concept", "model": "model", "granularity": "components", "objective": "objective"}
GROUPS |= {"estimator": "estimator", "edit": "edit", "images": "images", "tokens": "tokens", "sae": "autoencoder"}
GROUPS |= {"probe": "probe", "analysis": "analysis", "seed": "seed"}


@dataclass(frozen=True)
class Asked:
    """title, sentence: of the page; facts: what was chosen, name -> value."""

    title: str
    sentence: str
    facts: dict[str, str]


def asked(source: Source) -> Asked:
    """Return what the run was asked."""
    run = source.run
    facts = {name: str(run[key]) for key, name in GROUPS.items() if run.get(key) is not None}
    return Asked(_title(source), _sentence(source), facts)


def _title(source: Source) -> str:
    run, model = source.run, source.run.get("model", "a model")
    if source.task == "attribute":
        return f"{run.get('concept', 'a concept')} in {model}"
    titles = {"probe": f"What the layers of {model} know", "sae": f"Sparse features of {model}"}
    return titles.get(source.task) or f"{_words(run.get('analysis') or 'a run')} of {model}"


def _words(name: Any) -> str:
    text = str(name).replace("_", " ")
    return text[:1].upper() + text[1:]


def _sentence(source: Source) -> str:
    run, model = source.run, source.run.get("model", "the model")
    if source.task == "probe":
        return f"What does each layer of {model} know about its images, and when in the denoising does it know it?"
    if source.task == "sae":
        return f"Which sparse features do activations of {model} have, beside the dictionaries that they must beat?"
    if source.task == "analyse":
        return _looked(str(run.get("analysis")), str(model))
    prompt, concept = source.setting("concept", "prompt"), run.get("concept", "the concept")
    named = f"{concept} (“{prompt}”)" if prompt and prompt != concept else str(concept)
    which = f"Which {units(str(run.get('granularity', 'component')))} of {model} make {named}, which suppress it"
    edit = run.get("edit")
    return f"{which}?" if edit in (None, "none") else f"{which}, and what does the edit “{edit}” do to its images?"


def _looked(analysis: str, model: str) -> str:
    """Say what an analysis asks, by the first line of its file; by its name where it is none of the package's."""
    asks = options.options("analysis", [options.conf_folder()]).get(analysis) or _words(analysis).lower()
    return f"One look at what {model} represents: {asks}{'' if asks.endswith(('?', '.')) else '.'}"


BRIEF = 0.5  # seconds: what took less came from the cache, or had little to do


@dataclass(frozen=True)
class Made:
    """How a run was made. command: to type; config: YAML; facts and versions: name -> value; cite: BibTeX.

    seconds: of each stage that took some; brief: whether others took next to none.
    """

    command: str
    config: str
    facts: dict[str, str]
    versions: dict[str, str]
    seconds: dict[str, str]
    brief: bool
    cite: list[str]


def made(source: Source) -> Made:
    """Return how the run was made."""
    run = source.run
    versions = {str(name): str(each) for name, each in (run.get("versions") or {}).items() if each}
    keys = {"git": "git revision", "config_hash": "hash of the settings", "identity": "hash of settings and code"}
    keys |= {"weights": "hash of the weights", "seed": "seed", "device": "device", "precision": "precision"}
    facts = {name: str(run[key]) for key, name in keys.items() if run.get(key) is not None}
    spent = {str(stage): float(each) for stage, each in (run.get("seconds") or {}).items() if _is_number(each)}
    seconds = {stage.replace("_", " "): duration(each) for stage, each in spent.items() if each >= BRIEF}
    brief = any(0 < each < BRIEF for each in spent.values())  # 0: a stage that the run does not have
    revision = run.get("git")
    note = f"git revision {revision}" if revision else "installed without git"
    own = REPOSITORY.format(version=versions.get("cad-exp", "unknown"), note=note)
    config = yaml.safe_dump(source.config, sort_keys=False, allow_unicode=True, width=100) if source.config else ""
    return Made(command(source.command_folder), config, facts, versions, seconds, brief, [PAPER, own])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def command(folder: Path) -> str:
    """Return what was typed, from the overrides that Hydra keeps; "" where the run was not started by a command."""
    try:
        overrides = yaml.safe_load((folder / "overrides.yaml").read_text(encoding="utf-8"))
        hydra = yaml.safe_load((folder / "hydra.yaml").read_text(encoding="utf-8"))["hydra"]
        folders = search_path.of([_Plain(each) for each in hydra["runtime"]["config_sources"]])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return ""
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        return ""
    kept = [each for each in overrides if not each.lstrip("+").startswith(("hydra.run.dir", "hydra.sweep.dir"))]
    return commands.shell("cad_exp", kept, folders)


class _Plain:
    """One of Hydra's sources of configs, as its file tells of it."""

    def __init__(self, told: dict[str, Any]):
        self.path, self.schema, self.provider = (str(told.get(key)) for key in ("path", "schema", "provider"))
