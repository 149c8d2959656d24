"""The code of the functions that make cache entries, beside the modules that are named for a stage.

A maker is mostly a closure in `stages` or `studies`. It counts with the functions, classes and constants of its own
module that it reaches by name or through `self`, and so do functions that it holds. Comments count for nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

from cad_exp.pipeline.code import PACKAGE, source
from cad_exp.utils.hashing import digest

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def maker_version(make: Callable[..., Any]) -> str:
    """Return a hash of the syntax trees behind a function of this package; one from elsewhere counts for nothing."""
    waiting, seen, found = _functions(make), set(), set()
    while waiting:
        function = waiting.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        found |= _reached(function.__code__)
        held = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        waiting += [one for each in [*held, *(function.__defaults__ or ())] for one in _functions(each)]
    return digest(sorted(found))


def _functions(value: Any) -> list[FunctionType]:
    """The functions of this package behind a value: a function, a method, or a `partial` of some."""
    if isinstance(value, partial):
        return [one for each in (value.func, *value.args, *value.keywords.values()) for one in _functions(each)]
    if isinstance(value, MethodType):
        return _functions(value.__func__)
    ours = isinstance(value, FunctionType) and Path(value.__code__.co_filename).is_relative_to(PACKAGE)
    return [value] if ours else []


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # the variable has no value yet
        return False


@lru_cache(maxsize=1024)
def _reached(code: CodeType) -> frozenset[str]:
    """Hashes of the syntax trees of a function and of all that it reaches in its module."""
    tree = ast.parse(source(Path(code.co_filename)))
    known = _definitions(tree)
    waiting = [node for node in ast.walk(tree) if isinstance(node, Function) and _line(node) == code.co_firstlineno]
    found: dict[int, str] = {}
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = digest(ast.dump(node))
            waiting += [each for name in _names(node) for each in known.get(name, ())]
    return frozenset(found.values())


def _line(node: Function) -> int:
    """The first line of a function as its code object counts it, from its decorators on."""
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])


def _definitions(tree: ast.Module) -> dict[str, list[ast.AST]]:
    """What a module defines, by name: functions also within others, classes, constants; methods as `self.name`."""
    known: dict[str, list[ast.AST]] = {}
    methods = {id(one): one for each in ast.walk(tree) if isinstance(each, ast.ClassDef) for one in each.body}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            known.setdefault(f"self.{node.name}" if id(node) in methods else node.name, []).append(node)
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for each in [part for target in targets if target is not None for part in ast.walk(target)]:
            if isinstance(each, ast.Name):
                known.setdefault(each.id, []).append(node)
    return known


def _names(node: ast.AST) -> Iterable[str]:
    """Names that a tree uses; attributes of `self` as `self.name`."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
            yield f"self.{each.attr}"
