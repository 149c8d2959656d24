"""What a result depends on, as short hashes: the code, the library versions, the weights, the settings.

Nothing here imports torch: a run that is already finished is recognised in a moment.
"""

import re
from collections.abc import Sequence
from typing import Any

from cad_exp.attribution.estimators import ESTIMATORS
from cad_exp.attribution.objectives import OBJECTIVES
from cad_exp.config.as_dict import as_dict
from cad_exp.config.effective import changes_numbers, effective
from cad_exp.config.expand import runs
from cad_exp.config.names import check_name
from cad_exp.config.schema.representations import TASKS
from cad_exp.data.image_folder import images_digest
from cad_exp.data.labelled import SOURCES, source_settings
from cad_exp.data.metric_registry import METRICS
from cad_exp.data.prompts.sources import files as prompt_files
from cad_exp.evaluation.analyses import ANALYSES, IMAGE_ENCODER
from cad_exp.evaluation.judges import JUDGES, judge_class
from cad_exp.interventions.granularity_registry import GRANULARITIES, contents
from cad_exp.interventions.methods import METHODS
from cad_exp.models import image_encoders
from cad_exp.models.content import model_content
from cad_exp.models.families import FAMILIES
from cad_exp.pipeline.keys import code_version
from cad_exp.representations.probes.registry import PROBES
from cad_exp.representations.sae.registries import ARCHITECTURES
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import digest, file_digest, versions
from cad_exp.utils.paths import find_file
from cad_exp.utils.registry import chosen


def run_identity(config: dict[str, Any]) -> str:
    """Return what a finished run must share with a new one to stand for it, as a hash.

    It is of settings, code, versions, weights and files.
    """
    parts: list[Any] = [
        effective(config),
        code_version(program(config), *chosen_modules(config)),
        versions(),
        model_content(config["model"]),
    ]
    if config["task"]["name"] != "attribute":
        path = config["model"]["path"]
        reader = config.get("probe", config.get("analysis", {}))
        encoder = image_encoders.chosen(reader.get(IMAGE_ENCODER), path)
        images = SOURCES.make(source_settings(config["images"], path)).identity()
        return digest([*parts, images, image_encoders.content(encoder) if encoder else None])
    parts += [file_digest(file) for file in prompt_files(config)]
    for each in runs(config):
        parts += [contents(each["granularity"])]
        given, path = each["noisy_latents"]["images"], each["edit"].get("path")
        judge = judge_class(each["judge"])
        parts += [{} if judge is None else judge.identity_of(each)]
        parts += [images_digest(given, "noisy_latents.images") if given else None]
        parts += [file_digest(find_file(path, "edit.path"))] if path else []
    return digest(parts)


def program(config: dict[str, Any]) -> str:
    """Return the module that does the work of the config's task."""
    task = config.get("task")
    return f"cad_exp.pipeline.run_{task['name'] if isinstance(task, dict) else 'attribute'}"


# by which settings a run's folder is called, by task
_NAMED = {"attribute": ("concept.name", "granularity.name"), "analyse": ("analysis.name", "model.name")}


def run_name(*, _root_: Any) -> str:
    """OmegaConf resolver for the names of run folders: what is asked, and eight hex digits of settings, code, versions.

    UserError, before there is such a folder, for the name of a concept or granularity that cannot stand in its name.
    """
    from omegaconf import OmegaConf

    asks = OmegaConf.select(_root_, "task.name", default="attribute")
    keys = _NAMED.get(asks, ("task.name", "model.name"))
    found = {key: OmegaConf.select(_root_, key) for key in keys}
    if lacking := [key for key, name in found.items() if name is None]:
        group, _, name = lacking[0].partition(".")
        raise UserError(f"{lacking[0]} is missing: add '{name}: ...' to its file in {group}/, or choose another option")
    names = [str(name) for name in found.values()]
    for key, name in zip(keys, names, strict=True):
        check_name(name, key)
    return "-".join([*names, run_hash(_root_)])


def run_hash(composed: Any) -> str:
    """Return eight hex digits of the settings of a composed config, the code and the versions."""
    config = as_dict(composed, resolve=False)
    config.pop("hydra", None)
    return digest([effective(config), code_version(program(config), *chosen_modules(config)), versions()])[:8]


def chosen_modules(config: dict[str, Any]) -> list[str]:
    """Return the modules whose classes a run may use: all of this package, and those of plug-ins that it names.

    No run names a family: a model's own is found when it is loaded, so every plug-in's family counts.
    """
    groups = [(OBJECTIVES, "objective"), (ESTIMATORS, "estimator"), (METHODS, "edit"), (JUDGES, "judge")]
    groups += [(GRANULARITIES, "granularity"), (SOURCES, "images"), (PROBES, "probe"), (ARCHITECTURES, "sae")]
    groups += [(ANALYSES, "analysis")]
    named = [(registry, chosen(config[key])) for registry, key in groups if isinstance(config.get(key), dict)]
    named += [(METRICS, str(name)) for name in (config.get("evaluation") or {}).get("metrics") or []]
    more = {registry.where(name).module for registry, name in named if name in registry or "." in name}
    families = {FAMILIES.where(name).module for name in FAMILIES}
    return sorted({*own_modules(), *more, *families})


def own_modules() -> list[str]:
    """Return the modules of this package that registries name."""
    registries = (OBJECTIVES, ESTIMATORS, METHODS, JUDGES, METRICS)
    entries = [registry.where(name) for registry in registries for name in registry]
    return sorted({entry.module for entry in entries if entry.origin.partition(".")[0] == "cad_exp"})


def sweep_name(asked: Sequence[str], swept: Sequence[str]) -> str:
    """Name a sweep's folder by what it sweeps over, and a hash of its overrides, the code and versions.

    asked: all overrides, as written; swept: those that name several values. What changes no number renames nothing.
    """
    words = re.sub(r"[^\w.,-]+", "_", "-".join(item.partition("=")[2] for item in swept if changes_numbers(item)))
    code = code_version(*(f"cad_exp.pipeline.run_{task}" for task in TASKS), *own_modules())
    parts = [[item for item in asked if changes_numbers(item)], code, versions()]
    return f"{words[:60].strip('-_,') or 'sweep'}-{digest(parts)[:8]}"
