"""The code of modules of this package, and of all that they import from it, as a hash."""

import ast
import re
from functools import cache, lru_cache
from pathlib import Path

from cad_exp.utils.hashing import digest

PACKAGE = Path(__file__).parents[1]


@cache
def code_version(*modules: str) -> str:
    """Hash of the code of modules of this package ("data.noisy_latents") and of all that they import from the package.

    It is taken over the syntax trees: a comment or a line break changes nothing, everything else does.
    """
    return digest(sorted((file.relative_to(PACKAGE).as_posix(), tree) for file, tree in code_files(*modules).items()))


def code_files(*modules: str) -> dict[Path, str]:
    """The files of modules of this package and of all that they import from it, each with its syntax tree's hash."""
    seen: dict[Path, str] = {}
    waiting = [_file(name.split(".")) for name in modules]
    if None in waiting:  # a key without it would trust results of other code
        raise ModuleNotFoundError(f"one of these is no module of cad_exp: {', '.join(modules)}")
    while waiting:
        file = waiting.pop()
        if file is not None and file not in seen:
            seen[file], imported = _parsed(file, source(file))
            waiting += imported
    return seen


def source(file: Path) -> bytes:
    """The source text of a file of this package."""
    return file.read_bytes()


@lru_cache(maxsize=1024)
def _parsed(file: Path, text: bytes) -> tuple[str, list[Path]]:
    """The hash of a file's syntax tree, and the files of this package that it imports."""
    tree = ast.parse(text)
    imported = [other for node in ast.walk(tree) for other in _imports(node, file)]
    return digest(ast.dump(tree)), [other for other in imported if other is not None]


def _imports(node: ast.AST, file: Path) -> list[Path | None]:
    """Files of this package that an import statement, or an entry of a registry ("cad_exp.mini:Mini"), names."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        module = re.fullmatch(r"cad_exp\.([\w.]+):\w+", node.value)
        return [_file(module[1].split("."))] if module else []
    if isinstance(node, ast.Import):
        return [_file(a.name.split(".")[1:]) for a in node.names if a.name.startswith("cad_exp.")]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:
        folder = file.parent.relative_to(PACKAGE).parts
        base = [*folder[: len(folder) + 1 - node.level], *(node.module or "").split(".")]
    elif (node.module or "").split(".")[0] == "cad_exp":
        base = (node.module or "").split(".")[1:]
    else:
        return []
    base = [part for part in base if part]
    return [_file(base), *(_file([*base, a.name]) for a in node.names)]


def _file(parts: list[str]) -> Path | None:
    place = PACKAGE.joinpath(*parts)
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if parts and file.is_file():
            return file
    return None
