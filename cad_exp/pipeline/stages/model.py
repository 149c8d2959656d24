"""The model of a run: its pipeline, other weights laid over its denoiser, and edits that are made in it first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cad_exp.interventions.methods import METHODS
from cad_exp.models import model_folder
from cad_exp.models.content import model_content
from cad_exp.models.families import FAMILIES
from cad_exp.models.sources import check_reachable, check_weights, locate, locate_config, lora_file
from cad_exp.pipeline.stage import NO_KEY, Derived, Node
from cad_exp.utils import console
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import digest
from cad_exp.utils.paths import find_file
from cad_exp.utils.paths import resolve as resolve_path
from cad_exp.utils.tensor_header import kind_of

if TYPE_CHECKING:
    from cad_exp.interventions.edit import Edit
    from cad_exp.models.pipeline import DiffusionModel
    from cad_exp.pipeline.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Model(Derived["DiffusionModel"]):
    """A diffusion model as the group `model` of a config names it.

    path: a diffusers folder, a single file, a hub id or an embedded model. config: what describes a single file.
    weights: a file laid over the denoiser. lora: files of LoRA layers, added times lora_scale. edits: files of edits,
    made in the model one after the other. erased: the edit that is made last.
    The files count by their content; steps count where images are made.
    """

    path: str
    resolution: int | None = None
    guidance: float = 7.5
    weights: str | None = None
    config: str | None = None
    lora: tuple[str, ...] = ()
    lora_scale: float = 1.0
    edits: tuple[str, ...] = ()
    erased: Node[Edit] | None = None
    revision: str | None = field(default=None, metadata=NO_KEY)
    name: str = field(default="model", metadata=NO_KEY)
    steps: int = field(default=50, metadata=NO_KEY)

    @classmethod
    def of(cls, settings: dict[str, Any], erased: Node[Edit] | None = None) -> Model:
        """Return the model of the group `model` of a config."""
        names = ("path", "resolution", "guidance", "weights", "revision", "name", "steps")
        given = {name: settings[name] for name in names}
        given |= {"config": settings["config"], "lora": tuple(settings["lora"]), "lora_scale": settings["lora_scale"]}
        return cls(**given, edits=tuple(settings["edits"] or ()), erased=erased)

    def requires(self) -> None:
        """Check that the model can be had, and the files that it is to start from."""
        check_reachable(self.path, self.revision, self.config)
        folder = locate(self.path)
        described = locate_config(self.config, folder) if folder is not None and folder.is_file() else folder
        if described is not None:
            model_folder.check(described, self.resolution, weights=described == folder)
        if self.weights:
            check_weights(self.weights)
        for path in self.lora:
            lora_file(path)
        for path in self.edits:
            advice = "give the edit.safetensors of a run as model.edits"
            if kind_of(find_file(path, "model.edits", "edit file", advice)) != "edit":
                raise UserError(f"model.edits='{path}' is damaged or no edit file: {advice}")

    def inputs(self, runtime: Runtime) -> Any:
        """Return what the model depends on: the content of its files stands for their names."""
        files: dict[str, Any] = {
            "path": self.path,
            "revision": self.revision,
            "weights": self.weights,
            "edits": list(self.edits),
        }
        files |= {"config": self.config, "lora": list(self.lora), "lora_scale": self.lora_scale}
        told = super().inputs(runtime) | model_content(files)
        return {name: value for name, value in told.items() if name not in ("config", "lora_scale")}

    def modules(self) -> set[str]:
        """Return also the modules of all families, and those of methods that act in the edits it starts from."""
        methods = {METHODS.where(name).module for name in METHODS} if self.edits else set()
        return super().modules() | methods | {FAMILIES.where(name).module for name in FAMILIES}

    def derive(self, runtime: Runtime) -> DiffusionModel:
        """Load the model onto the runtime's device; the last one stays loaded for the next run of the process."""
        memory = {key: runtime.settings[key] for key in ("checkpointing", "offload")}
        key = digest([runtime.key(self), str(runtime.device), runtime.precision, memory, self.name, self.steps])
        return _kept(_Load(key, lambda: self._load(runtime, **memory)))

    def _load(self, runtime: Runtime, checkpointing: bool, offload: str) -> DiffusionModel:
        from cad_exp.interventions.edit import Edit
        from cad_exp.models import activation_checkpointing, lora
        from cad_exp.models import offload as offloading
        from cad_exp.models.pipeline import DiffusionModel
        from cad_exp.models.state_dicts import overlay

        console.say(f"  loading {self.name}")
        place = str(runtime.device) if offload == "none" else "cpu"
        settings = (self.revision, place, runtime.precision, self.steps, self.guidance, self.name, self.resolution)
        model = DiffusionModel.load(self.path, *settings, config=self.config)
        if self.weights:
            laid = overlay(model.denoiser, self.weights)
            console.say(f"  {laid} weight tensors of {self.weights} laid over the denoiser")
        if self.lora:
            layers = lora.fuse(model.pipe, self.lora, self.lora_scale)
            console.say(f"  {layers} LoRA layers added, times {self.lora_scale:g}")
        for path in self.edits:
            Edit.load(resolve_path(path)).apply(model)
        if self.erased is not None:
            runtime.get(self.erased).apply(model)
        if offload != "none":
            offloading.place(model, runtime.device, offload)
        if checkpointing:
            activation_checkpointing.enable(model.denoiser)
        return model


class _Load:
    """How to load a model; two are equal when their keys are."""

    def __init__(self, key: str, load: Callable[[], DiffusionModel]):
        self.key, self.load = key, load

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Load) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=1)
def _kept(asked: _Load) -> DiffusionModel:
    """Load a model, or return the last one: the jobs of a sweep that share a process share their model."""
    return asked.load()
