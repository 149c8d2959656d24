"""What a search's command line asks for: the run that it varies, the space, the constraint, the folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cad_exp.config import commands, grammar, hydra_errors, options, search_path
from cad_exp.config.arguments import without_flags
from cad_exp.config.as_dict import as_dict
from cad_exp.config.effective import effective
from cad_exp.config.resolve import resolve
from cad_exp.config.rules import SCOPES
from cad_exp.evaluation.judges import JUDGES
from cad_exp.pipeline.search.study import Parameters, Space
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.hashing import digest

# Trials are many: no copy in Weights & Biases, and only the metrics that the search reads. Both can be overridden.
BRIEF = ["tracking=disabled", "evaluation.metrics=[erasure,retention]"]
OVERRIDES = {
    "ratio": "edit.ratio",
    "scope": "edit.scope",
    "estimator": "estimator",
    "factor": "edit.factor",
    "objective": "objective",
}
MOST = 1_000_000  # trials
FIXED_BY = {"ratio": ("edit.ratio", "edit.count"), "scope": ("edit.scope", "granularity.scope")}


@dataclass
class Plan:
    """What a command asks for. `overrides`: the run's, as typed; `config`: of the edit an ordinary run would make.

    named: the parts of the space whose values the command names itself.
    """

    overrides: list[str]
    config_folders: list[Path]
    config: dict[str, Any]
    space: Space
    trials: int
    bound: float
    folder: Path
    named: frozenset[str] = frozenset()

    @property
    def higher(self) -> bool:
        """Whether this search wants a high concept rate (edit=amplify)."""
        return bool(self.config["evaluation"]["higher_concept_is_better"])

    @property
    def settings(self) -> dict[str, Any]:
        """What makes this study another study than others."""
        return _settings(self.config, self.space, self.bound)

    def default(self) -> Parameters:
        """Return the parameters of the ordinary run."""
        edit = self.config["edit"]
        named = {group: self.config[group]["name"] for group in ("estimator", "objective")}
        return {"ratio": edit["ratio"], "scope": edit["scope"], "factor": edit["factor"], **named}

    def arguments(self, parameters: Parameters) -> list[str]:
        """Return the command-line arguments of the ordinary run with these parameters."""
        return [*self.overrides, *(commands.override(OVERRIDES[name], value) for name, value in parameters.items())]

    def command(self, parameters: Parameters, fresh: bool = False) -> str:
        """Return what to type to run these parameters; fresh: the same edit on images of another seed."""
        arguments = self.arguments(parameters)
        if fresh:
            arguments = [a for a in arguments if a.partition("=")[0] != "evaluation.seed"]
            arguments.append(f"evaluation.seed={self.config['evaluation']['seed'] + 1}")
        return commands.shell("cad_exp", arguments, self.config_folders[1:])


def read(arguments: list[str]) -> Plan:
    """Read the plan of a command line.

    Raises UserError for anything misspelt or contradictory, before anything heavy is loaded.
    """
    defaults = as_dict(OmegaConf.load(options.conf_folder() / "search.yaml"), resolve=False)
    own_folders, given = without_flags(arguments, "cad_exp search", defaults)
    folders = [options.conf_folder(), *own_folders]
    run_keys = [*as_dict(OmegaConf.load(folders[0] / "config.yaml"), resolve=False), *options.GROUPS]
    known = [*defaults, *(key for key in run_keys if key not in ("defaults", "hydra"))]
    own: list[str] = []
    asked: list[str] = []
    for item in grammar.parse(given, folders):
        first, _, second = item.key_or_group.partition(".")
        if first.partition("/")[0] == "hydra":
            raise UserError(f"'{item.key_or_group}' means nothing to a search: folder=... says where its files go")
        if first not in known:
            raise UserError(options.unknown(first, known, "setting"))
        if first == "space" and second not in defaults["space"]:
            raise UserError(options.unknown(second, list(defaults["space"]), "setting in space"))
        if item.is_sweep_override():
            raise UserError(
                "a search takes one value of each setting; choices stand in brackets, as in space.scope=[global,layer]"
            )
        (own if first in defaults else asked).append(str(item.input_line))
    if not any(argument.startswith("edit=") for argument in asked):
        asked.insert(0, "edit=erase")  # the default edit finds its own strength
    wanted = composed("search", own, folders)
    trials, bound = _number(wanted, "trials"), _number(wanted, "retention")
    if not 1 <= trials <= MOST or trials != int(trials):
        raise UserError(f"trials={wanted['trials']} is no number of trials: use 1 to {MOST:,}")
    if not 0 <= bound <= 1:
        raise UserError(f"retention={wanted['retention']} is out of range: it is a share, 0 to 1, such as 0.95")
    if not isinstance(wanted["folder"], str | None):
        raise UserError(f"folder={wanted['folder']} is no folder: name one, such as folder=first")
    config = composed("config", [*BRIEF, *asked], folders)
    space = _space(wanted["space"], [a.partition("=")[0] for a in own], asked, config, folders)
    config = _resolved(config, folders[1:])
    name = f"{config['concept']['name']}-{config['granularity']['name']}"
    own_hash = digest(_settings(config, space, bound))[:10]
    folder = Path(wanted["folder"] or Path("outputs") / "search" / f"{name}-{own_hash}")
    typed = {a.partition("=")[0].partition(".")[2] for a in own}
    named = frozenset(name for name in typed & set(space) if wanted["space"][name] is not None)
    return Plan(asked, folders, config, space, int(trials), bound, folder, named)


def _number(wanted: dict[str, Any], key: str) -> float:
    value = wanted[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{key}={value} is not a number")
    return float(value)


def composed(name: str, overrides: list[str], folders: list[Path]) -> dict[str, Any]:
    """Return a config as Hydra composes it, as plain dicts. UserError in a person's words."""
    try:
        with search_path.searched(folders[1:]), initialize_config_dir(str(folders[0]), version_base="1.3"):
            config = compose(name, overrides)
            return as_dict(config, complete=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(hydra_errors.explain(error, folders)) from error


def _space(
    wanted: dict[str, Any], own: list[str], overrides: list[str], config: dict[str, Any], folders: list[Path]
) -> Space:
    """Return what is searched: the defaults filled in, minus what the command fixes the ordinary way.

    Raises UserError if something is wrong.
    """
    fixed = {a.partition("=")[0].lstrip("+") for a in overrides}
    values = {name: value for name, value in wanted.items()}
    for name in OVERRIDES:
        by = fixed & set(FIXED_BY.get(name, (OVERRIDES[name],)))
        if by and f"space.{name}" in own:
            raise UserError(f"{by.pop()}=... fixes what space.{name} is to search: give one of the two")
        if by:
            values[name] = None
        elif values[name] is None and name in ("scope", "estimator"):
            values[name] = _all(name, config, folders)
        elif values[name] is not None and not isinstance(values[name], list):
            values[name] = [values[name]]
    if "edit.count" in fixed and "scope" not in [n for n in OVERRIDES if f"space.{n}" in own]:
        values["scope"] = None  # a count counts over the whole model
    space: Space = {name: value for name, value in values.items() if value is not None}
    if any(len(value) == 0 for value in space.values()):
        raise UserError("a list in the space is empty: leave it out, or name what the search may choose from")
    for name in set(space) & {"scope", "estimator", "objective"}:
        names: list[Any] = list(space[name])
        for value in names:
            choose(value, _all(name, config, folders), f"{name} in space.{name}")
    for name in set(space) & {"ratio", "factor"}:
        if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in space[name]):
            raise UserError(f"space.{name}={space[name]} must hold numbers, such as space.{name}=[{_EXAMPLES[name]}]")
    if "ratio" in space:
        low, high = space["ratio"][0], space["ratio"][-1]
        if len(space["ratio"]) > 2 or not 0 < low <= high <= 1:
            raise UserError("space.ratio takes the lowest and the highest ratio, above 0 and up to 1: [0.005,0.5]")
        space["ratio"] = [low] if low == high else (float(low), float(high))
    return {name: list(dict.fromkeys(v)) if isinstance(v, list) else v for name, v in space.items()}


_EXAMPLES = {"ratio": "0.005,0.5", "factor": "0,-1"}


def _all(name: str, config: dict[str, Any], folders: list[Path]) -> list[str]:
    """Return every value that a name in the space can take."""
    if name != "scope":
        return [option for option in options.options(name, folders) if option != "auto"]
    if own := SCOPES.get(config["granularity"]["name"]):
        return list(own)
    from cad_exp.interventions.granularity_registry import GRANULARITIES

    return list(GRANULARITIES.of(config["granularity"]).scopes)  # a plug-in's class knows its own; it loads torch


def _resolved(config: dict[str, Any], folders: list[Path]) -> dict[str, Any]:
    """Return the ordinary run's config with nothing left open. UserError if there would be nothing to search by."""
    if config["task"]["name"] != "attribute":
        raise UserError(f"task={config['task']['name']} edits nothing, so there is nothing to search: leave it out")
    if config["edit"].get("strength") is not None:
        raise UserError("edit.strength=auto finds its own ratio, so there is nothing to search: leave it out")
    if config["edit"]["name"] not in ("erase", "amplify"):
        raise UserError(f"edit={config['edit']['name']} has nothing to search: use edit=erase or edit=amplify")
    if config["concept"]["label"] is None:
        raise UserError(
            f"the judge has no label for concept={config['concept']['name']}, so erasure cannot be measured: "
            "give concept.kind and concept.label"
        )
    resolved = resolve(config, folders)
    if resolved["judge"]["name"] is None:
        raise UserError(f"a search needs a judge for the model's images: judge={' or judge='.join(JUDGES)}")
    if not {"erasure", "retention"} <= set(config["evaluation"]["metrics"]):
        raise UserError("a search needs erasure and retention: leave evaluation.metrics out, or name both")
    return resolved


def _settings(config: dict[str, Any], space: Space, bound: float) -> dict[str, Any]:
    """Return what makes a study another study.

    That is everything but the number of trials, where files go and where copies are.
    """
    return {**effective(config), "space": {name: list(values) for name, values in space.items()}, "retention": bound}
