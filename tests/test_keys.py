"""Cache keys: every function of the package that runs while an entry is made changes that entry's key when it changes.

Tiny runs of every stage are watched. What a stage's `cached_property` made earlier counts again where it is asked for.
"""

import ast
import functools
import sys
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType

import numpy as np
import pytest

from cad_exp.pipeline import code as package_code
from cad_exp.pipeline import makers
from cad_exp.pipeline.cache.store import Cache
from cad_exp.pipeline.code import PACKAGE, code_files, code_version
from cad_exp.pipeline.experiment import run
from cad_exp.pipeline.makers import maker_version

from .test_configs import composed
from .test_experiment import FAST, FIDELITY
from .test_image_folder import save

# Modules that cannot change what an entry holds, each for its reason.
EXEMPT = {
    "utils/console.py": "says what happens",
    "utils/progress.py": "says what happens",
    "utils/distributed.py": "hands work to processes; their number is in the inputs where it counts",
    "utils/errors.py": "words of refusals",
    "utils/io.py": "how JSON is written; entries are read back through it",
    "pipeline/cache/store.py": "where entries lie",
    "pipeline/cache/entry.py": "where entries lie",
    "pipeline/cache/folder.py": "where entries lie",
    "pipeline/cache/leases.py": "which processes use a cache",
    "utils/text.py": "how text is shown",
    "pipeline/code.py": "the keys themselves",
    "utils/hashing.py": "the keys themselves",
    "pipeline/makers.py": "the keys themselves",
    "utils/paths.py": "finds files, whose contents are in the inputs",
    "models/sources.py": "finds the model, whose files are in the inputs",
    "evaluation/redaction.py": "which images are kept, which is in the inputs",
    "models/offload.py": "trades memory for time, no number depends on it",
    "models/activation_checkpointing.py": "trades memory for time, no number depends on it",
}


class Watch:
    """What ran while entries were made: (stage, modules, maker's code) -> (maker, code objects)."""

    def __init__(self):
        self.entries: dict[tuple, tuple] = {}
        self.running: list[set[CodeType]] = []
        self.values: dict[tuple, tuple] = {}

    def note(self, frame, event: str, _) -> None:
        code = frame.f_code
        # bodies of modules and classes, which run when something is imported, have no fast local variables
        if code.co_name.startswith("<") and code.co_name != "<lambda>":
            return  # a comprehension is part of the function that it stands in
        if event == "call" and self.running and code.co_flags & 1 and code.co_filename.startswith(str(PACKAGE)):
            self.running[-1].add(code)

    @contextmanager
    def part(self):
        self.running.append(set())
        try:
            yield self.running[-1]
        finally:
            self.running.pop()

    def make(self, stage: str, modules: tuple, make, draft: Path) -> None:
        for module in [module for name, module in sys.modules.items() if name.startswith("cad_exp.")]:
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear") and module not in (package_code, makers):
                    value.cache_clear()
        with self.part() as ran:
            sys.setprofile(self.note)
            try:
                make(draft)
            finally:
                sys.setprofile(self.note if len(self.running) > 1 else None)
        _, before = self.entries.setdefault((stage, modules, make.__code__), (make, set()))
        before |= ran


@pytest.fixture(scope="module")
def watch():
    """The package under watch: the cache's makers, and every `cached_property`."""
    watch, patch = Watch(), pytest.MonkeyPatch()
    get, read = Cache.get, functools.cached_property.__get__

    def watched(self, stage, modules, inputs, make, shared=False):
        return get(self, stage, modules, inputs, partial(watch.make, stage, modules, make), shared)

    def value(self, instance, owner=None):
        if instance is None or not type(instance).__module__.startswith("cad_exp."):
            return read(self, instance, owner)
        key = (id(instance), self.attrname)
        if key not in watch.values:
            with watch.part() as ran:
                watch.values[key] = (self.func(instance), ran, instance)
        if watch.running:
            watch.running[-1].update(watch.values[key][1])
        return watch.values[key][0]

    patch.setattr(Cache, "get", watched)
    patch.setattr(functools.cached_property, "__get__", value)
    yield watch
    patch.undo()


def go(folder: Path, *overrides: str) -> None:
    from cad_exp.pipeline import stages

    stages._last_model.clear()
    run(composed(*FAST, "runtime.cache=null", "runtime.device=cpu", *overrides), folder)


LOCAL = ["model=local", "judge=none", "evaluation=none", "probes.samples=1", "probes.steps=2", "granularity=head"]
IMAGES = ["evaluation.fidelity.images.number=2", "evaluation.fidelity.images.samples=2"]


@pytest.fixture(scope="module")
def watched(watch, tiny_folder, tmp_path_factory) -> Watch:
    """A run of everything that makes entries, as small as it gets."""
    folder = tmp_path_factory.mktemp("runs")
    for number in range(2):
        save(folder / "images" / f"{number}.png")
    tiny = [*LOCAL, f"model.path={tiny_folder}", "concept=church"]
    go(folder / "walks", *tiny, "probes.guidance=0", "probes.independent=true", "objective=erase")
    go(folder / "noised", *tiny, "objective=amplify", "estimator=first_order", f"probes.images={folder / 'images'}")
    go(folder / "made", *tiny, "objective=amplify", "estimator=first_order", "evaluation.timesteps=1")
    edits = f"model.edits=[{folder / 'made' / 'edit.safetensors'}]"
    go(folder / "uce", *tiny, "edit=uce", edits)
    go(folder / "judged", "concept=church", "granularity=layer", "evaluation=erasure", "evaluation.samples=1")
    asked = [item for item in FAST if "fidelity" not in item]
    fidelity = [*asked, *FIDELITY, "concept=church", "granularity=layer", "evaluation.metrics=[]"]
    fidelity += ["runtime.cache=null"]
    run(composed(*fidelity, "evaluation.fidelity.stability=false"), folder / "fidelity")
    return watch


def altered(text: bytes, code: CodeType) -> bytes:
    """The source of a module in which one function does something more: a number stands in it, to no effect."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    found = [node for node in nodes if makers._line(node) == code.co_firstlineno]
    assert found, f"{code.co_filename} {code.co_qualname}"
    lines = text.splitlines(keepends=True)
    for node in found[-1:]:
        if isinstance(node, ast.Lambda):
            line, column, more = node.body.lineno, node.body.col_offset, b"12345 and "
        else:
            while isinstance(getattr(node, "body", None), list):
                node = node.body[0]
            line, column, more = node.end_lineno, node.end_col_offset, b"; 12345"
        lines[line - 1] = lines[line - 1][:column] + more + lines[line - 1][column:]
    return b"".join(lines)


def uncovered(watch: Watch, monkeypatch) -> dict[tuple, set[str]]:
    """Functions whose change leaves the key of an entry that they made as it was: (stage, modules) -> names."""
    read, changed = package_code.source, {}
    for module in (package_code, makers):
        monkeypatch.setattr(module, "source", lambda file: changed.get(file) or read(file))

    def key(modules: tuple, make) -> tuple[str, str]:
        makers._reached.cache_clear()
        return code_version.__wrapped__(*modules), maker_version(make)

    left, known = defaultdict(set), {}
    for (stage, modules, _), (make, ran) in watch.entries.items():
        before, files = key(modules, make), set(code_files(*modules))
        assert before == key(modules, make)
        for code in ran:
            file = Path(code.co_filename)
            name = file.relative_to(PACKAGE).as_posix()
            if name in EXEMPT or name.startswith(".") or (stage, modules, file) in known:
                continue
            if file in files:  # then all functions of the file count: one stands for them
                known[stage, modules, file] = True
            changed[file] = altered(read(file), code)
            if key(modules, make) == before:
                left[stage, modules].add(f"{name}: {code.co_qualname}")
            changed.clear()
    return left


def test_every_function_that_makes_an_entry_counts_in_its_key(watched, monkeypatch):
    stages = {stage for stage, _, _ in watched.entries}
    assert stages >= {"walks", "probes", "attribution", "rivals", "images", "judgements", "fidelity", "ablations"}
    assert stages >= {"timesteps"} and len(watched.entries) > 12
    left = uncovered(watched, monkeypatch)
    assert not left, "\n".join(f"{stage}: {sorted(names)}" for stage, names in left.items())


def test_the_watch_sees_what_is_missing(watched, monkeypatch):
    """Without the makers' own code, and with modules left out, the check above fails."""
    monkeypatch.setattr(sys.modules[__name__], "maker_version", lambda make: "")
    names = {name for names in uncovered(watched, monkeypatch).values() for name in names}
    assert "pipeline/stages.py: independent" in names


@pytest.mark.parametrize("objective", ["clip", "judge", "contrast"])
@pytest.mark.slow
def test_other_objectives_and_their_judges(objective, watch, tmp_path, monkeypatch):
    go(tmp_path, f"objective={objective}", "concept=church", "granularity=layer", "evaluation=none")
    assert not uncovered(watch, monkeypatch)


@pytest.mark.slow
def test_quality_fidelity_of_images_and_drawings(watch, tmp_path, monkeypatch):
    asked = [item for item in FAST if "fidelity" not in item]
    more = [*asked, *FIDELITY, *IMAGES, "concept=church", "granularity=layer", "runtime.cache=null"]
    run(composed(*more), tmp_path)
    assert "reference" in {stage for stage, _, _ in watch.entries} and not uncovered(watch, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("edit", ["esd", "rece"])
def test_trained_and_closed_form_rivals(edit, watch, tmp_path, monkeypatch):
    go(tmp_path, f"edit={edit}", "concept=church", "evaluation=none", *(["edit.steps=1"] if edit == "esd" else []))
    assert not uncovered(watch, monkeypatch)


def test_a_makers_code_counts_with_what_it_reaches():
    """By name, through `self`, in a closure's cells, through `partial`; but nothing of other packages."""
    from cad_exp.pipeline.stages import Stages, independent

    assert maker_version(independent) != maker_version(Stages._seen) != maker_version(Stages.objective)
    assert maker_version(partial(independent, 3)) == maker_version(independent)
    assert maker_version(np.mean) == maker_version(save) == maker_version(partial(save, Path()))
    reached = makers._reached(Stages.sample.__code__)
    assert makers._reached(independent.__code__) < reached
