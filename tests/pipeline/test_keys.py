"""Keys of stages: neither too narrow (a stale result) nor too wide (a new colour that computes everything again).

Tiny runs of every stage are watched: whatever ran while one was made must belong to the code of its key.
"""

import dataclasses
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from cad_exp.config.resolve import resolve
from cad_exp.pipeline import keys
from cad_exp.pipeline.keys import code_files, code_version, excluded
from cad_exp.pipeline.run import run
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stage import Chosen, Derived, Node, Stage, graph
from cad_exp.pipeline.stages.autoencoders import Plan, Recipe
from cad_exp.pipeline.stages.images import GivenImages
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.model import Model, _kept
from cad_exp.pipeline.stages.replacement import GivenFile
from cad_exp.pipeline.tasks import analyse, probe, sae
from tests.config.test_configs import composed
from tests.data.test_image_folder import save
from tests.graphs import graph_of
from tests.pictures import undrawn
from tests.pipeline.test_experiment import FAST, FIDELITY

PACKAGE = Path(keys.__file__).parents[1]


class Watch:
    """Which modules ran while each stage was made."""

    def __init__(self):
        self.made: list[tuple[Stage, set[str]]] = []
        self.running: list[set[str]] = []

    def note(self, frame, event: str, _) -> None:
        name = frame.f_globals.get("__name__", "")
        # bodies of modules and classes, which run when something is imported, have no fast local variables
        if event == "call" and self.running and frame.f_code.co_flags & 1 and name.startswith("cad_exp."):
            self.running[-1].add(name)

    @contextmanager
    def watching(self, stage: Stage):
        forget()
        self.running.append(set())
        sys.setprofile(self.note)
        try:
            yield
        finally:
            ran = self.running.pop()
            sys.setprofile(self.note if self.running else None)
            self.made.append((stage, ran))


def forget() -> None:
    """What a function remembers would not run again."""
    for module in [module for name, module in sys.modules.items() if name.startswith("cad_exp.")]:
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear") and value is not _kept and module is not keys:
                value.cache_clear()


@pytest.fixture(scope="module")
def watch():
    """Every stage's `make` under watch."""
    watch, patch, entry = Watch(), pytest.MonkeyPatch(), Runtime.entry

    def watched(self, stage, tick=lambda *_: None):
        if type(stage).make.__name__ != "watched_make":
            make = type(stage).make

            def watched_make(own, runtime, folder, tick):
                with watch.watching(own):
                    make(own, runtime, folder, tick)

            patch.setattr(type(stage), "make", watched_make)
        return entry(self, stage, tick)

    patch.setattr(Runtime, "entry", watched)
    yield watch
    patch.undo()


def go(folder: Path, *overrides: str) -> None:
    _kept.cache_clear()
    with undrawn():
        run(composed(*FAST, "runtime.cache=null", "runtime.device=cpu", *overrides), folder)


LOCAL = [
    "model=local",
    "judge=none",
    "evaluation=none",
    "noisy_latents.samples=1",
    "noisy_latents.steps=2",
    "granularity=head",
]
IMAGES = ["evaluation.fidelity.images.number=2", "evaluation.fidelity.images.samples=2"]


@pytest.fixture(scope="module")
def watched(watch, tiny_folder, tmp_path_factory) -> Watch:
    """A run of everything that makes entries, as small as it gets."""
    folder = tmp_path_factory.mktemp("runs")
    for number in range(2):
        save(folder / "images" / f"{number}.png")
    tiny = [*LOCAL, f"model.path={tiny_folder}", "concept=church"]
    go(folder / "walks", *tiny, "noisy_latents.guidance=0", "noisy_latents.independent=true", "objective=erase")
    go(
        folder / "noised",
        *tiny,
        "objective=amplify",
        "estimator=first_order",
        f"noisy_latents.images={folder / 'images'}",
    )
    go(folder / "made", *tiny, "objective=amplify", "estimator=first_order", "evaluation.timesteps=1")
    edits = f"model.edits=[{folder / 'made' / 'edit.safetensors'}]"
    go(folder / "uce", *tiny, "edit=uce", edits)
    few = ["concept=church", "granularity=layer", "estimator.patterns=2"]
    go(folder / "judged", *few, "evaluation=erasure", "evaluation.samples=1")
    asked = [item for item in FAST if "fidelity" not in item]
    fidelity = [*asked, *FIDELITY, *few, "evaluation.metrics=[]"]
    fidelity += ["runtime.cache=null"]
    with undrawn():
        run(composed(*fidelity, "evaluation.fidelity.stability=false"), folder / "fidelity")
    probed = ["task=probe", "images.number=60", "activations.timesteps=[1]"]
    go(folder / "probes", *probed, "activations.hookpoints=[noisy_latent,embedding]")
    go(folder / "analysis", "task=analyse", "images.number=20", "activations.timesteps=[1]")
    sparse = [
        "task=sae",
        "images.number=20",
        "sae.tokens=1024",
        "sae.width=16",
        "sae.seeds=2",
        "sae.k=2",
        "sae.batch_size=64",
    ]
    go(folder / "sae", *sparse, "tokens.steps=2")
    go(folder / "sae_noised", *sparse, "tokens=noised", "tokens.timesteps=[1]", "sae=matryoshka", "sae.width=16")
    return watch


def counted(stage: Stage) -> set[str]:
    """Every module whose code is in the stage's key: its own, and those of what it depends on."""
    return {name for node in graph(stage) for name in code_files(*node.modules())}


def uncounted(watch: Watch) -> dict[str, set[str]]:
    """What ran while stages were made, and is neither in their keys nor excluded for a reason."""
    left: dict[str, set[str]] = {}
    for stage, ran in watch.made:
        lacking = {name for name in ran - counted(stage) if not excluded(name)}
        if lacking:
            left.setdefault(type(stage).__name__, set()).update(lacking)
    return left


def test_every_module_that_makes_a_stage_counts_in_its_key(watched):
    made = {stage.folder for stage, _ in watched.made}
    assert made >= {"walks", "noisy_latents", "attribution", "replacements", "images", "judgements", "fidelity"}
    assert made >= {"timesteps", "ablations", "labelled_images", "activations", "probes"}
    assert made >= {"tokens", "autoencoders", "features"}
    assert not uncounted(watched)


def test_the_watch_sees_what_is_missing(watched, monkeypatch):
    """With a stage's own module alone, the check above fails."""
    monkeypatch.setattr(sys.modules[__name__], "counted", lambda stage: {type(stage).__module__})
    assert "cad_exp.models.pipeline" in uncounted(watched)["Images"]


@pytest.mark.parametrize("objective", ["clip", "judge", "contrast"])
@pytest.mark.slow
def test_other_objectives_and_their_judges(objective, watch, tmp_path):
    go(tmp_path, f"objective={objective}", "concept=church", "granularity=layer", "evaluation=none")
    assert not uncounted(watch)


@pytest.mark.slow
def test_quality_fidelity_of_images_and_drawings(watch, tmp_path):
    asked = [item for item in FAST if "fidelity" not in item]
    more = [*asked, *FIDELITY, *IMAGES, "concept=church", "granularity=layer", "runtime.cache=null"]
    run(composed(*more), tmp_path)
    assert "reference" in {stage.folder for stage, _ in watch.made} and not uncounted(watch)


@pytest.mark.slow
@pytest.mark.parametrize("edit", ["esd", "rece"])
def test_trained_and_closed_form_methods(edit, watch, tmp_path):
    go(tmp_path, f"edit={edit}", "concept=church", "evaluation=none", *(["edit.steps=1"] if edit == "esd" else []))
    assert not uncounted(watch)


# ------------------------------------------------------------------------------------------ what changes a key


WHOLE = ["concept=church", "granularity=head", "evaluation=fidelity", "evaluation.metrics=[erasure]"]
WHOLE += [
    "evaluation.samples=1",
    "evaluation.timesteps=2",
    "evaluation.fidelity.held_out=true",
    "noisy_latents.guidance=0",
]
WHOLE += ["runtime.device=cpu", "objective=contrast", "objective.of=judge"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> tuple[Runtime, list[Node]]:
    """Graphs that hold a node of every kind; nothing of them is made."""
    folder = tmp_path_factory.mktemp("lab")
    save(folder / "images" / "0.png")
    runtime, whole, _ = graph_of(folder / "cache", *WHOLE)
    noised = ["concept=church", "objective=amplify", "evaluation=none"]
    more = [
        graph_of(folder / "cache", *noised)[1],
        graph_of(folder / "cache", *noised, f"noisy_latents.images={folder / 'images'}")[1],
        graph_of(folder / "cache", "concept=church", "edit=uce", "evaluation=none", "model.erased=['edit=uce']")[1],
        graph_of(folder / "cache", "concept=church", "edit=joint")[1],
        graph_of(folder / "cache", "concept=church", "edit=erase")[1],
        graph_of(folder / "cache", "concept=church", "evaluation.fidelity.second_order=4")[1],
        probe.build(resolve(composed("task=probe"))),
        analyse.build(resolve(composed("task=analyse"))),
        sae.build(resolve(composed("task=sae"))),
        sae.build(resolve(composed("task=sae", "tokens=noised"))),
    ]
    return runtime, graph(*(node for each in (whole, *more) for node in each.nodes()))


def kinds(of: type) -> set[type]:
    """The classes of nodes that stand for something."""
    below = {kind for each in of.__subclasses__() for kind in kinds(each)}
    return below | ({of} if dataclasses.fields(of) and "Node" not in of.__name__ else set())


def test_the_graphs_hold_every_kind_of_stage(lab):
    aside = {
        "Answers",
        "Encoded",
        "GameOfJ",
        "GameOfImages",
        "Drawings",
        "FolderFeatures",
        "Autoencoders",
        "GivenFile",
        "SecondOrderOfJ",
        "ResampledEdit",
    }  # made while others are
    here = {type(node) for node in lab[1]}
    assert {kind.__name__ for kind in kinds(Stage) | kinds(Derived)} - {kind.__name__ for kind in here} <= aside


def other(value):
    """Another value of the same type."""
    if isinstance(value, Model):
        return dataclasses.replace(value, guidance=value.guidance + 1)
    if isinstance(value, (Judge, GivenImages, GivenFile)):
        return None  # known by their content
    if isinstance(value, Chosen):
        key = "seed" if "seed" in value.settings else "another"
        return Chosen(value.settings | {key: value.settings.get(key, 0) + 1}, value.modules)
    if isinstance(value, Node):
        name = next(each.name for each in counting(value))
        return dataclasses.replace(value, **{name: other(getattr(value, name))})
    if isinstance(value, (Plan, Recipe)):
        return dataclasses.replace(value, seed=value.seed + 1)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, tuple):
        return (*value, value[0]) if value else ("more",)
    return (
        {None: "set"}.get(value, value)
        if value is None
        else f"{value}x"
        if isinstance(value, str)
        else {**value, "more": 1}
    )


def counting(node: Node) -> list[dataclasses.Field]:
    return [each for each in dataclasses.fields(node) if each.metadata.get("key", True)]


def test_every_field_changes_the_key(lab):
    runtime, nodes = lab
    tried = set()
    for node in nodes:
        if type(node) in tried or isinstance(node, (Model, Judge, GivenImages, GivenFile)):
            continue
        tried.add(type(node))
        before = runtime.key(node)
        for each in counting(node):
            changed = dataclasses.replace(node, **{each.name: other(getattr(node, each.name))})
            assert changed.key(runtime) != before, f"{type(node).__name__}.{each.name}"
    assert len(tried) > 12


@pytest.mark.parametrize(
    "changed", [{"path": "mini_dit"}, {"resolution": 32}, {"guidance": 1.0}, {"erased": "another"}, {"edits": "file"}]
)
def test_a_models_settings_change_its_key(changed, lab, tmp_path):
    runtime, nodes = lab
    model = next(node for node in nodes if isinstance(node, Model))
    if "edits" in changed:
        (tmp_path / "edit.safetensors").write_bytes(b"an edit")
        changed = {"edits": (str(tmp_path / "edit.safetensors"),)}
    assert dataclasses.replace(model, **changed).key(runtime) != model.key(runtime)
    for name, value in {"name": "another", "steps": 7, "revision": "main"}.items():
        assert dataclasses.replace(model, **{name: value}).key(runtime) == model.key(runtime)


def test_device_precision_and_threads_belong_to_what_is_kept(lab):
    runtime, nodes = lab
    stage = next(node for node in nodes if isinstance(node, Stage))
    assert {"device", "precision", "threads"} <= set(runtime.inputs(stage))


@cache
def _text(file: Path) -> bytes:
    return file.read_bytes()


def codes(nodes: list[Node], monkeypatch, changed: str, add: bytes) -> dict[str, str]:
    """The code hashes of these nodes when a text stands at the end of one module."""
    file = keys._file(changed)
    assert file is not None
    with monkeypatch.context() as patch:
        patch.setattr(keys, "source", lambda place: _text(place) + (add if place == file else b""))
        return {type(node).__name__: code_version.__wrapped__(*sorted(node.modules())) for node in nodes}


def test_what_only_shows_things_changes_no_key(lab, monkeypatch):
    nodes = list({type(node): node for node in lab[1]}.values())
    before = codes(nodes, monkeypatch, "cad_exp.utils.console", b"")
    for module in ("cad_exp.utils.console", "cad_exp.utils.progress", "cad_exp.reporting.figures.attribution"):
        assert codes(nodes, monkeypatch, module, b"\nmore = 1\n") == before
    for module in ("cad_exp.models.pipeline", "cad_exp.pipeline.stages.images"):
        assert codes(nodes, monkeypatch, module, b"\n# a comment\n") == before


CODE = """'''Of the module.'''
RATE = 0.5
NAME = "erase"
class Walk:
    '''Of the class.'''
    def step(self, size: int = 2):
        '''Of the method.'''
        async def inner():
            '''Of a function within.'''
        return size * RATE  # a comment
"""
PARSED = keys._parsed(CODE.encode(), "m", False)


@pytest.mark.parametrize(
    "old, new", [("Of the", "About the"), ("Of a", "A"), ("# a comment", ""), ("'''Of the module.'''", "")]
)
def test_words_for_readers_change_no_key(old, new):
    assert old in CODE and keys._parsed(CODE.replace(old, new).encode(), "m", False) == PARSED


@pytest.mark.parametrize(
    "old, new",
    [("0.5", "0.25"), ("= 2", "= 3"), ('"erase"', '"keep"'), ("* RATE", "+ RATE"), ("size: int", "size: float")],
)
def test_constants_defaults_and_code_change_the_key(old, new):
    assert old in CODE and keys._parsed(CODE.replace(old, new).encode(), "m", False) != PARSED


def test_only_docstrings_are_words_for_readers():
    """A string that is no docstring may be data."""
    one, other = (keys._parsed(f"def f():\n    x = 1\n    {text!r}\n".encode(), "m", False) for text in ("a", "b"))
    assert one != other and keys._parsed(b"'a' + f()", "m", False) != keys._parsed(b"'b' + f()", "m", False)


@pytest.mark.parametrize(
    "module, name",
    [
        ("cad_exp.models.pipeline", "Model"),
        ("cad_exp.data.noisy_latents", "Trajectories"),
        ("cad_exp.attribution.game", "Scores"),
        ("cad_exp.attribution.estimators.ablated_gradients", "Scores"),
        ("cad_exp.interventions.selection", "SelectedEdit"),
        ("cad_exp.interventions.methods.uce", "Replacement"),
        ("cad_exp.evaluation.records", "Judgements"),
        ("cad_exp.evaluation.fidelity.statistics", "Fidelity"),
        ("cad_exp.attribution.objectives.noise", "Question"),
    ],
)
def test_the_code_that_makes_a_stage_changes_its_key(module: str, name: str, lab, monkeypatch):
    nodes = list({type(node): node for node in lab[1]}.values())
    before = codes(nodes, monkeypatch, module, b"")
    assert codes(nodes, monkeypatch, module, b"\nmore = 1\n")[name] != before[name]


def test_a_runs_folder_keeps_its_name_when_a_picture_changes(monkeypatch):
    files = code_files("cad_exp.pipeline.run")
    assert not [name for name in files if name.startswith("cad_exp.reporting")]
    assert {"cad_exp.evaluation.erasure", "cad_exp.interventions.edit", "cad_exp.pipeline.stages.fidelity"} <= set(
        files
    )


def test_every_excluded_module_is_there_and_holds_a_reason():
    for name, reason in keys.EXCLUDED.items():
        assert keys._file(name) is not None, name
        assert reason
