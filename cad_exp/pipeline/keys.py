"""Hash the code that makes a result: a module with all that it imports from its own package and from cad_exp.

The hash is taken over syntax trees without docstrings, so words for readers and line breaks change nothing. Modules
that only show things or find files (`EXCLUDED`) do not count: no number depends on them. Nothing here imports torch or
runs the hashed code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

from cad_exp.utils.hashing import digest, file_digest

# No result depends on these modules (with all below them), each for its reason. A test holds every other one to count.
EXCLUDED = {
    "cad_exp.cli": "starts runs",
    "cad_exp.reporting": "shows results",
    "cad_exp.utils.console": "shows what happens",
    "cad_exp.utils.progress": "shows how far it is",
    "cad_exp.utils.text": "shows text",
    "cad_exp.utils.errors": "holds words of refusals",
    "cad_exp.utils.gpu_lock": "decides when a run may begin",
    "cad_exp.utils.process": "handles signals and exit codes",
    "cad_exp.models.sources": "finds the model's files, whose content is in the key",
    "cad_exp.models.offload": "trades memory for time",
    "cad_exp.models.activation_checkpointing": "trades memory for time",
    "cad_exp.pipeline.cache": "decides where entries lie",
    "cad_exp.pipeline.runtime": "makes stages and finds them again",
    "cad_exp.pipeline.stage": "says what a stage is",
    "cad_exp.pipeline.keys": "makes the keys",
}

# Registries whose classes a node of the graph names (`stage.Chosen`). All others count with every class they hold.
CHOOSERS = (
    "cad_exp.attribution.estimators",
    "cad_exp.attribution.objectives",
    "cad_exp.data.labelled",
    "cad_exp.data.metric_registry",
    "cad_exp.evaluation.judges",
    "cad_exp.interventions.methods",
    "cad_exp.representations.probes.registry",
)
_ENTRY = re.compile(r"(cad_exp(?:\.\w+)+):\w+")  # of a registry


@cache
def code_version(*modules: str) -> str:
    """Return a hash of the code of these modules (dotted names) and of all that they import.

    A plug-in's module that is not there counts as absent: nothing can be made by it, and others must not suffer.

    Raises:
        ModuleNotFoundError: a module of this package that is not there; a key without it would trust other code.
    """
    return digest(sorted(code_files(*modules).items()))


def code_files(*modules: str) -> dict[str, str]:
    """Return the hash of every module that counts, by its dotted name: of its syntax tree, or of a compiled file."""
    waiting, seen = list(modules), {name: "absent" for name in modules if _file(name) is None}
    if lacking := [name for name in seen if name.partition(".")[0] == "cad_exp"]:
        raise ModuleNotFoundError(f"no such module, so no key can name its code: {', '.join(lacking)}")
    while waiting:
        name = waiting.pop()
        file = None if name in seen or excluded(name) else _file(name)
        if file is not None and file.suffix == ".py":
            seen[name], imported = _parsed(source(file), name, file.name == "__init__.py")
            waiting += imported
        elif file is not None:
            seen[name] = file_digest(file)
    return seen


def excluded(name: str) -> bool:
    """Return whether a module, by its dotted name, can change no number."""
    return any(name == each or name.startswith(f"{each}.") for each in EXCLUDED)


def source(file: Path) -> bytes:
    """Return the source text of a module."""
    return file.read_bytes()


@lru_cache(maxsize=4096)
def _parsed(text: bytes, name: str, package: bool) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a module's syntax tree, and the names that it imports of its own package and of ours."""
    tree, own = _without_docstrings(ast.parse(text)), {name.partition(".")[0], "cad_exp"}
    imported = [each for node in _running(tree) for each in _imports(node, name, package)]
    return digest(ast.dump(tree)), tuple(each for each in imported if each.partition(".")[0] in own)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Take the docstrings out of a module's tree, in place; other strings are data and stay."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            del node.body[0]
    return tree


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node of a tree but what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from _running(other)
            continue
        yield node
        yield from _running(node)


def _imports(node: ast.AST, name: str, package: bool) -> list[str]:
    """Yield dotted names of modules that an import statement, or an entry of a registry, may name."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and name not in CHOOSERS:
        entry = _ENTRY.fullmatch(node.value)
        return [entry[1]] if entry else []
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = name.split(".")
        above = parts[: len(parts) - node.level + package]
        base = ".".join([*above, *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def _file(name: str) -> Path | None:
    """Return the file of a module by its dotted name, its source where there is one; None for what is no module."""
    top, *rest = name.split(".")
    root = _root(top)
    if root is None or (rest and root.name != "__init__.py"):
        return None
    place = root.parent.joinpath(*rest) if rest else root.parent
    compiled = [place.with_name(place.name + suffix) for suffix in EXTENSION_SUFFIXES]
    for file in (place.with_suffix(".py"), place / "__init__.py", *compiled) if rest else (root,):
        if file.is_file():
            return file
    return None


@cache
def _root(top: str) -> Path | None:
    """Return the file of a top-level module or package."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None
