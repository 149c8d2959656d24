"""The expensive stages of a run, each through the cache: probes, attribution, images, judgements, reference drawings.

The model and the judges are loaded when something has to be made, and not before. With several processes each makes its
share of the entries, and then all read all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property, partial
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file

from cad_exp.attribution.attribute import FILE, Attribution, attribute
from cad_exp.attribution.by_timestep import bins_of
from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.objectives.build import Objective, check, formula, make_objective, retained_prompts
from cad_exp.config.resolve import Config
from cad_exp.data.image_folder import images_digest, load_folder
from cad_exp.data.noisy_latents import Probes, look, sample_noised, sample_trajectory, walk
from cad_exp.data.requests import Shot, batches, retention_prompts
from cad_exp.evaluation import erasure, redaction
from cad_exp.evaluation.distances import Statistics
from cad_exp.evaluation.fidelity.metrics import check as check_fidelity
from cad_exp.evaluation.judge_sources import at_hand, reference_digest, reference_place, wanted
from cad_exp.evaluation.judges import Judge, RealJudge, load_judge
from cad_exp.evaluation.judges.inception import read_statistics
from cad_exp.evaluation.outliers import FEWEST, QUANTILE, World, spread
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.methods import make_rival, perturbation
from cad_exp.interventions.spaces import GRANULARITIES, OPTIONAL, make_granularity
from cad_exp.models import activation_checkpointing, offload
from cad_exp.models.pipeline import DiffusionModel, resolve
from cad_exp.models.state_dicts import overlay
from cad_exp.pipeline.cache import Cache
from cad_exp.pipeline.code import code_version
from cad_exp.pipeline.identity import model_identity
from cad_exp.utils import console, distributed, images, progress
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.hashing import digest, file_digest
from cad_exp.utils.paths import resolve as resolve_path

PROBES = "probes.safetensors"
SCORED = ("all", "chosen")  # runtime.score
THREADS = torch.get_num_threads()
_last_model: dict[str, DiffusionModel] = {}  # the jobs of a sweep that share a process share their model


class Stages:
    """The stages of one settled config. Every method returns what the stage's files hold."""

    def __init__(self, config: Config, cache: str | Path):
        self.config, self.cache = config, Cache(resolve_path(cache))
        self.cache.sweep_drafts()
        runtime = config["runtime"]
        torch.set_num_threads(runtime["threads"] or THREADS)  # the job before may have asked for another number
        self.device, self.precision = resolve(runtime["device"], runtime["precision"])
        offload.check(runtime["offload"], self.device)
        card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        # A guidance-distilled model, or one that is told its guidance, predicts and walks otherwise.
        settings = {key: config["model"][key] for key in ("path", "resolution", "guidance")}
        self.weights = model_identity(config["model"])
        self.base: dict[str, Any] = {"model": self.weights | settings, "device": card, "precision": self.precision}
        self.erasing: Edit | None = None  # what `start_from` was given
        self.judge, self.explicit = self._judges(), redaction.mode(config)
        self._remake: dict[str, Callable[[Path], None]] = {}  # entry of images -> what makes them once more
        # The number of threads decides in which order a CPU adds up, and so the last bits.
        self.base["threads"] = torch.get_num_threads() if self.device.type == "cpu" else None

    def start_from(self, edit: Edit) -> None:
        """Make this edit in the model after those of `model.edits`; before any stage."""
        self.erasing = edit
        self.base["model"]["erased"] = [edit.digest(), code_version("interventions.edit")]

    @cached_property
    def model(self) -> DiffusionModel:
        """The model of the config, with the edits that it is to start from (`model.edits`, `erasing`) already made."""
        settings, key = self.config["model"], digest([self.base, self.config["model"], self._memory])
        if key not in _last_model:
            _last_model.clear()
            console.say(f"  loading {settings['name']}")
            model = DiffusionModel.load(
                settings["path"],
                settings["revision"],
                str(self.device) if self._memory["offload"] == "none" else "cpu",
                self.precision,
                settings["steps"],
                settings["guidance"],
                settings["name"],
                settings["resolution"],
            )
            if settings["weights"]:
                laid = overlay(model.denoiser, settings["weights"])
                console.say(f"  {laid} weight tensors of {settings['weights']} laid over the denoiser")
            for path in settings["edits"] or []:
                Edit.load(resolve_path(path)).apply(model)
            if self.erasing is not None:
                self.erasing.apply(model)
            if self._memory["offload"] != "none":
                offload.place(model, self.device, self._memory["offload"])
            if self._memory["checkpointing"]:
                activation_checkpointing.enable(model.denoiser)
            _last_model[key] = model
        return _last_model[key]

    @property
    def _memory(self) -> dict[str, Any]:
        """The options that trade memory for time. No number depends on them, so no cache entry does."""
        return {key: self.config["runtime"][key] for key in ("checkpointing", "offload")}

    def _judges(self) -> Judge | None:
        """The judges that the config's metrics need. UserError, before any work, if their weights are missing."""
        settings = self.config["judge"]
        if settings["name"] != "real":
            return load_judge(settings["name"])
        places, lacking = at_hand(settings, wanted(self.config))
        for what in lacking.values():
            console.say(f"  without {what}", style="yellow")
        return load_judge("real", settings, places, str(self.device))

    def _seen(self, files: list[Path]) -> np.ndarray:
        """Images (N, H, W, 3) as they were made: those of which only a cover was kept are made again, and not kept."""
        found = []
        for place, group in groupby(files, key=lambda file: file.parent):
            names = [file.name for file in group]
            with self.cache.hold(place):
                if not self.cache.covered(place):
                    found.append(images.load([place / name for name in names]))
                    continue
            with self.cache.scratch() as folder:
                self._remake[place.name](folder)
                found.append(images.load([folder / name for name in names]))
        return np.concatenate(found)

    def cover(self, shots: list[Shot], pictures: dict[str, list[Path]]) -> None:
        """Blur or drop the explicit images, which by now were judged, as `evaluation.explicit` says."""
        if self.explicit == "kept" or not distributed.main():
            return
        places = {
            file.parent
            for files in pictures.values()
            for shot, file in zip(shots, files, strict=True)
            if redaction.is_explicit(shot, self.config["concept"])
        }
        for place in sorted(places):
            self.cache.cover(place, redaction.cover(self.explicit))
        if places:
            console.say(f"  explicit images: {self.explicit} (evaluation.explicit=kept keeps them)")

    def _entries(self, stage: str, makers: list[Callable[[], Path]], what: str = "") -> list[Path]:
        """All entries in order, made where they are missing: with several processes each makes its share first."""
        before = self.cache.reused[stage]
        if distributed.size() > 1:
            for make in distributed.share(makers):
                make()
            distributed.barrier()
        places = [make() for make in makers]
        reused = self.cache.reused[stage] - before
        if reused and distributed.size() == 1:
            which = "all" if reused == len(places) else f"{reused} of {len(places)} parts"
            console.say(f"  {what or stage}: {which} from the cache")
        return places

    def probes(self) -> Probes:
        """Trajectories of the concept's prompt, or noised images of it, as the objective needs."""
        concept, objective = self.config["concept"], self.config["objective"]
        check(objective, concept, self.judge)
        check_fidelity(self.config["evaluation"]["fidelity"], concept, self.judge)  # before any work
        self.parts: list[Path] = []
        return self.sample(concept["prompt"], concept["base_prompt"], self.config["probes"]["images"])

    def retained(self) -> list[Probes]:
        """Probes of each prompt that the objective is to retain, along its own trajectories; after `probes`."""
        objective = self.config["objective"]
        prompts = retained_prompts(objective, self.config["concept"])
        return [self.sample(prompt, objective["base_prompt"]) for prompt in prompts]

    def sample(self, prompt: str, base_prompt: str, folder: str | None = None, others: int = 0) -> Probes:
        """Probes of one prompt; `folder` holds images of it for noised probes. Their cache entries join `parts`.

        others: so many trajectories that are not among those of the config.
        """
        settings = self.config["probes"]
        console.stage(f'probes: {others or settings["samples"]} x {settings["steps"]} of "{prompt}"')
        if formula(self.config["objective"]).probes_kind == "noised":
            return self._noised(prompt, base_prompt, folder)
        seeds = seeds_of(settings, settings["samples"] + others)[settings["samples"] if others else 0 :]
        size, steps = settings["batch_size"], settings["steps"]
        shared = {"base_prompt": base_prompt, "steps": steps}
        own = shared | {"prompt": prompt, "guidance": settings["guidance"]}
        with progress.progress(len(seeds) * steps, "probes") as tick:

            def maker(start: int) -> Callable[[], Path]:
                part = {"seeds": seeds[start : start + size]}
                report = _shifted(tick, start * steps, len(seeds) * steps)

                def make_walk(draft: Path) -> None:
                    walk(self.model, **shared, **part, batch_size=size, progress=report).save(draft / PROBES)

                def make(draft: Path) -> None:
                    tell_apart(self.model, prompt, base_prompt)
                    if settings["guidance"] == 0:  # then the trajectories are the base prompt's: one for all concepts
                        place = self.cache.get("walks", ("data.noisy_latents",), self.base | shared | part, make_walk)
                        found = look(self.model, Probes.load(place / PROBES), prompt, 2 * size)
                    else:
                        found = sample_trajectory(self.model, **own, **part, batch_size=size, progress=report)
                    found.save(draft / PROBES)

                return lambda: self.cache.get("probes", ("data.noisy_latents",), self.base | own | part, make)

            places = self._entries("probes", [maker(start) for start in range(0, len(seeds), size)])
        whole = Probes.join([Probes.load(place / PROBES) for place in places])
        if not settings["independent"]:
            self.parts += places
            return whole

        def choose_steps(draft: Path) -> None:
            whole[independent(len(seeds), steps)].save(draft / PROBES)

        inputs = {"of": [place.name for place in places], "independent": True}
        self.parts += self._entries(
            "probes", [lambda: self.cache.get("probes", ("data.noisy_latents",), inputs, choose_steps)]
        )
        return Probes.load(self.parts[-1] / PROBES)

    def _noised(self, prompt: str, base_prompt: str, folder: str | None) -> Probes:
        """Probes on noised images of a prompt: those of the folder, else images that the model generates."""
        settings, batch = self.config["probes"], self.config["runtime"]["batch_size"]
        n = settings["samples"] * settings["steps"]
        seeds = seeds_of(settings, n)
        shots: list[Shot] = []
        files: list[Path] = []
        if folder:
            origin = {"images": images_digest(folder, "probes.images"), "origin": "given"}
        else:
            shots = [Shot("probe", prompt, seed, "", "") for seed in seeds]
            files = self.images(shots, {"probes": Edit({})})["probes"]
            origin = {"images": list(dict.fromkeys(file.parent.name for file in files)), "origin": "generated"}
        inputs = {"prompt": prompt, "base_prompt": base_prompt, "n": n, "seed": seeds[0]}

        def make(draft: Path) -> None:
            tell_apart(self.model, prompt, base_prompt)
            shown = load_folder(folder, self.resolution) if folder else self._seen(files)
            with progress.progress(n, "noised probes") as tick:
                probes = sample_noised(
                    self.model, **inputs, images=shown, batch_size=batch, progress=tick, origin=origin["origin"]
                )
            probes.save(draft / PROBES)

        inputs_all = self.base | inputs | origin | {"batch_size": batch}
        modules = ("data.noisy_latents", "data.image_folder" if folder else "utils.images")
        places = self._entries("probes", [lambda: self.cache.get("probes", modules, inputs_all, make)])
        self.cover(shots, {"probes": files})
        self.parts += places
        return Probes.load(places[0] / PROBES)

    @property
    def resolution(self) -> int:
        return self.config["model"]["resolution"] or self.model.resolution

    def attribution(self, probes: Probes) -> Attribution:
        """Every component's signed score; all processes compute it together.

        An additive estimator scores all granularities and kinds of site at once, unless runtime.score=chosen asks for
        less; any other the chosen ones only.
        """
        config, batch = self.config, self.config["runtime"]["batch_size"]
        objective, estimator = config["objective"], make_estimator(**config["estimator"])
        if config["evaluation"]["timesteps"] is not None:
            bins_of(probes.t, config["evaluation"]["timesteps"])  # refuses what does not fit, before the work
        facts = {"concept": config["concept"]["name"], "seed": config["seed"]}
        self.context = {key: config["concept"][key] for key in ("kind", "label")} | {"retained": self.retained()}
        self.modules, self.who = (
            ("attribution.attribute",),
            {},
        )  # code and judges that the objective's numbers depend on
        if "judge" in formula(objective).context:
            self.modules, self.who = (
                ("attribution.attribute", "evaluation.judges"),
                {key: self.context[key] for key in ("kind", "label")},
            )
            self.who |= {"judge": self.judge.definition, "clip": self.judge.clip_definition}
            self.context["judge"] = self.judge
        console.stage(f"attribution: {objective['name']}, {estimator.name}")
        inputs = {"probes": [part.name for part in self.parts], "objective": objective}
        inputs |= {"estimator": config["estimator"], "batch_size": batch, "processes": distributed.size()}
        if estimator.additive and choose(config["runtime"]["score"], SCORED, "runtime.score") == "all":
            asked = [kind for kind in config["granularity"]["kinds"] or () if kind in OPTIONAL]
            every = GRANULARITIES.values()
            cuts = [cut([*cut.allowed_kinds, *(kind for kind in asked if kind in cut.optional_kinds)]) for cut in every]
            inputs |= {"also": asked} if asked else {}
        else:
            cuts = [make_granularity(config["granularity"]["name"], config["granularity"]["kinds"])]
            inputs["granularity"] = {"name": cuts[0].name, "kinds": list(cuts[0].kinds)}
        inputs = self.base | inputs | facts | self.who
        # Beside the entries: what a killed run has finished must outlive its draft, but is worth nothing to other code.
        key = digest([inputs, code_version(*self.modules)])
        checkpoint = self.cache.folder / ".checkpoints" / f"{key}.safetensors"

        def make(draft: Path) -> None:
            with progress.progress(len(probes), "attribution") as tick:
                scored = attribute(
                    self.model,
                    probes,
                    self.objective(probes),
                    estimator,
                    cuts,
                    meta=facts,
                    progress=tick,
                    checkpoint=checkpoint,
                )
            if distributed.main():
                scored.save(draft)
                checkpoint.unlink(missing_ok=True)

        self.scores = self.cache.get("attribution", self.modules, inputs, make, shared=True)
        if self.cache.reused["attribution"]:
            console.say("  attribution: from the cache")
        return Attribution.load(self.scores / FILE)

    def rival(self) -> dict[str, Edit]:
        """The edit of a method that replaces weights (interventions/methods), and a random change of the same size."""
        settings = self.config["edit"]
        inputs = self.base | {"rival": settings, "beside": self.config["seed"] + 1}
        if settings.get("path"):
            inputs["file"] = file_digest(resolve_path(settings["path"]))
        console.stage(f"edit: {settings['name']}")
        # As for an attribution, what a killed training has finished lies beside the entries.
        name = f"{digest([inputs, code_version('interventions.methods')])}.safetensors"
        unfinished = self.cache.folder / ".checkpoints" / name

        def make(draft: Path) -> None:
            with progress.progress(settings.get("steps", 1), settings["name"]) as tick:
                edit = make_rival(settings, self.model, unfinished, tick)
            edit.save(draft / "edited.safetensors")
            perturbation(edit, self.model, inputs["beside"]).save(draft / "random.safetensors")
            unfinished.unlink(missing_ok=True)

        [place] = self._entries("rivals", [lambda: self.cache.get("rivals", ("interventions.methods",), inputs, make)])
        edits = {variant: Edit.load(place / f"{variant}.safetensors") for variant in ("edited", "random")}
        made = edits["edited"].meta
        if not made["changed"]:
            raise UserError(f"edit={settings['name']} changes no weight of this model: there is nothing to evaluate")
        console.say(f"  {made['changed']:,} weights of {made['matrices']:,} tensors replaced")
        return edits

    def objective(self, probes: Probes, retained: list[Probes] | None = None) -> Objective:
        """The config's objective at these probes; `retained` in place of all probes of what is to stay."""
        settings, batch = dict(self.config["objective"]), self.config["runtime"]["batch_size"]
        context = self.context if retained is None else self.context | {"retained": retained}
        return make_objective(settings.pop("name"), self.model, probes, batch, None, context, **settings)

    def images(self, shots: list[Shot], edits: dict[str, Edit]) -> dict[str, list[Path]]:
        """variant -> one PNG per shot: images of the model under every edit, with equal prompts and seeds.

        A shot's own guidance and size go before the model's; `batches` puts only equal ones together.
        """
        settings, found = self.config["model"], {}
        how = {"steps": settings["steps"], "guidance": settings["guidance"]}
        parts = batches(shots, self.config["evaluation"]["batch_size"])
        console.stage(f"images: {len(shots)} for each of {', '.join(edits)}")
        for variant, edit in edits.items():
            modules = ("models.pipeline", "utils.images", *(() if edit.empty else ("interventions.edit",)))
            with progress.progress(len(shots) * how["steps"], f"images, {variant}") as tick:
                done = 0

                def maker(
                    batch: list[Shot], edit: Edit = edit, modules: tuple[str, ...] = modules, tick: Any = tick
                ) -> Any:
                    nonlocal done
                    first, done = done, done + len(batch)
                    what = how | {"prompts": [s.prompt for s in batch], "seeds": [s.seed for s in batch]}
                    if batch[0].guidance is not None:
                        what["guidance"] = batch[0].guidance
                    if batch[0].size is not None:
                        what["size"] = batch[0].size

                    def make(draft: Path, again: bool = False) -> None:
                        report = None if again else _shifted(tick, first * how["steps"], len(shots) * how["steps"])
                        with edit.apply(self.model) if "interventions.edit" in modules else nullcontext():
                            images.save(draft, self.model.generate(**what, batch_size=len(batch), progress=report))

                    inputs = self.base | what | {"edit": edit.digest()}
                    if self.explicit != "kept" and redaction.is_explicit(batch[0], self.config["concept"]):
                        inputs["explicit"] = self.explicit  # what stays of them is not what others keep

                    def get() -> Path:
                        place = self.cache.get("images", modules, inputs, make)
                        self._remake[place.name] = partial(make, again=True)
                        return place

                    return get

                places = self._entries("images", [maker(batch) for batch in parts], f"images, {variant}")
            found[variant] = [
                place / f"{i:04d}.png" for place, batch in zip(places, parts, strict=True) for i in range(len(batch))
            ]
        return found

    def judgements(self, shots: list[Shot], pictures: dict[str, list[Path]]) -> erasure.Records:
        """What the judges say of every image of every variant, and of drawings for the metrics that need them."""
        judge, settings = self.judge, self.config["evaluation"]
        who = {"judge": judge.identity}
        starts = list(accumulate(map(len, batches(shots, settings["batch_size"])), initial=0))
        said, features = {}, []
        for variant, files in pictures.items():

            def maker(start: int, stop: int, files: list[Path] = files) -> Callable[[], Path]:
                own, plain = files[start:stop], pictures["unedited"][start:stop]
                prompts = [shot.prompt for shot in shots[start:stop]]

                def make(draft: Path) -> None:
                    shown = self._seen(own)
                    unedited = shown if own == plain else self._seen(plain)
                    table, seen = erasure.judge_batch(judge, prompts, shown, unedited)
                    table.to_parquet(draft / "judgements.parquet")
                    save_file({"features": seen}, str(draft / "features.safetensors"))

                inputs = who | {"prompts": prompts, "images": own[0].parent.name, "unedited": plain[0].parent.name}
                return lambda: self.cache.get("judgements", ("evaluation.records", "utils.images"), inputs, make)

            makers = [maker(start, stop) for start, stop in pairwise(starts)]
            places = self._entries("judgements", makers, f"judgements, {variant}")
            said[variant] = pd.concat([pd.read_parquet(place / "judgements.parquet") for place in places])
            features += [load_file(str(place / "features.safetensors"))["features"] for place in places]
        asked = "quality" in settings["metrics"] and "features" in judge.definitions
        reference, words = self._reference(shots, who) if asked else (None, "")
        seen, table = np.concatenate(features), erasure.tabulate(shots, said, judge)
        table["outside"], world_is = self._outside(table, seen)
        return erasure.Records(
            table,
            seen,
            judge.definitions,
            reference,
            words,
            judge.threshold,
            judge.thresholds,
            world_is=world_is,
        )

    def _outside(self, table: pd.DataFrame, features: np.ndarray) -> tuple[np.ndarray, str]:
        """Of every image 1 where nothing in the world resembles it, else 0 (NaN: not known), and the rule in words.

        The world of the embedded judges is drawn; that of the published ones is what the unedited model makes, whose
        image of the same prompt and seed is not looked at.
        """
        unknown, rule = np.full(len(table), np.nan), f"farther than {100 * QUANTILE:.0f} % of these from the others"
        if "features" not in self.judge.definitions:
            return unknown, ""
        if not isinstance(self.judge, RealJudge):
            known = self.judge.world()
            if known is None:
                return unknown, ""
            what = f"{len(known)} drawings of the whole mini world, {rule}"
            return World.of(known).outside(features).astype(float), f"judged by {what}"
        plain = (table["variant"] == "unedited").to_numpy()
        if plain.sum() < FEWEST:
            return unknown, ""
        shot = table.groupby("variant", sort=False).cumcount().to_numpy()
        kept, own = spread(int(plain.sum())), np.full(plain.sum(), -1)
        own[kept] = np.arange(len(kept))
        what = f"{len(kept)} of the unedited model's images of other prompts and seeds, {rule}"
        return World.of(features[plain][kept]).outside(features, own[shot]).astype(float), f"judged by {what}"

    def _reference(self, shots: list[Shot], who: dict[str, Any]) -> tuple[np.ndarray | Statistics | None, str]:
        """What FID and KID compare with, and its name: the config's, for the mini world drawings; None: nothing."""
        if isinstance(self.judge, RealJudge):
            given = self.config["judge"]["inception"]["reference"]
            return self._given(reference_place(given)) if given else (None, "")
        known = {asked[1:] for asked in retention_prompts()}
        drawn = dict.fromkeys((s.kind, s.label) for s in shots if s.purpose == "retention")
        if not known.issuperset(drawn):  # captions of a prompt set: the mini world has no drawings of them
            return None, ""
        return self._drawings(list(drawn), who), "drawings of the mini world that show what the prompts name"

    def _given(self, place: Path) -> tuple[np.ndarray | Statistics, str]:
        """Statistics of a file, or the features of all images of a folder."""
        if place.is_file():
            return read_statistics(place), f"stored statistics {place.name} {reference_digest(place)}"
        part = self.judge.parts["inception"]

        def make(draft: Path) -> None:
            save_file({"features": part.of_folder(place)}, str(draft / "features.safetensors"))

        inputs = {"judge": part.definition, "images": reference_digest(place)}
        found = self._entries("reference", [lambda: self.cache.get("reference", ("evaluation.judges",), inputs, make)])[
            0
        ]
        return load_file(str(found / "features.safetensors"))["features"], f"folder {place.name} {inputs['images']}"

    def _drawings(self, asked: list[tuple[str, str]], who: dict[str, Any]) -> np.ndarray:
        """The judge's features (M, F) of drawings of what the retention prompts ask for."""
        number, seed = self.config["evaluation"]["reference_samples"], self.config["evaluation"]["seed"]

        def maker(kind: str, label: str) -> Callable[[], Path]:
            def make(draft: Path) -> None:
                _, features = self.judge.labels(erasure.drawings(kind, label, number, seed))
                save_file({"features": features}, str(draft / "features.safetensors"))

            inputs = who | {"kind": kind, "label": label, "number": number, "seed": seed}
            return lambda: self.cache.get("reference", ("evaluation.records",), inputs, make)

        places = self._entries("reference", [maker(*each) for each in asked])
        return np.concatenate([load_file(str(place / "features.safetensors"))["features"] for place in places])


def tell_apart(model: DiffusionModel, prompt: str, base_prompt: str) -> None:
    """UserError where the model is told the same by both: its tokenizers ignore white space and case, and cut."""
    one, other = (model.encode([text]) for text in (prompt, base_prompt))
    pairs = [(one.text, other.text), *((value, other.extras[name]) for name, value in one.extras.items())]
    if all(torch.equal(*pair) for pair in pairs):
        first, second = (repr(text if len(text) < 60 else f"{text[:57]}...") for text in (prompt, base_prompt))
        raise UserError(
            f"the model reads the prompt {first} and the base prompt {second} as the same text (case, white space and "
            "what is beyond its length do not count), so there is nothing to look for: choose another base prompt"
        )


def seeds_of(settings: Config, number: int) -> list[int]:
    """Seeds of the first trajectories of a config's probes."""
    first = 1_000_000 * settings["seed"]
    return list(range(first, first + number))


def independent(trajectories: int, steps: int) -> torch.Tensor:
    """Rows of joined trajectories, (trajectories,) int64: one step of each, spread evenly from the first to the last.

    With as many trajectories as steps every step is there once, each of a trajectory of its own.
    """
    number = torch.arange(trajectories)
    return number * steps + (2 * number + 1) * steps // (2 * trajectories)


def _shifted(tick: progress.Tick, before: int, total: int) -> progress.Tick:
    """Progress of a part as progress of the whole."""
    return lambda done, _: tick(before + done, total)
