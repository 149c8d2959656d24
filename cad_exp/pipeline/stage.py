"""Say what a stage is: one artifact of a run, with everything that it depends on.

A run is a graph. Its nodes are frozen dataclasses, and a field of a node may be another node. A `Stage` makes files
that the cache keeps; a `Derived` node is computed from others in a moment, and the cache does not keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from cad_exp.pipeline.keys import code_version
from cad_exp.utils.hashing import digest
from cad_exp.utils.registry import Registry, chosen

if TYPE_CHECKING:
    from cad_exp.pipeline.runtime import Runtime

Tick = Callable[[int, int], Any]
T_co = TypeVar("T_co", covariant=True)  # the value of a node
K = TypeVar("K")
NO_KEY = {"key": False}  # metadata of a field that no number depends on


@dataclass(frozen=True)
class Chosen:
    """Name classes by a config's settings, and the modules that define them: their code belongs to the key."""

    settings: dict[str, Any]
    modules: tuple[str, ...]

    @classmethod
    def of(cls, registry: Registry, settings: dict[str, Any], *more: str) -> Chosen:
        """Return the choice of the class that a config group names, and of more classes by their names."""
        return cls(settings, tuple(registry.where(name).module for name in (chosen(settings), *more)))

    @property
    def name(self) -> str:
        """The name by which the config chose it."""
        return str(self.settings["name"])

    @property
    def own(self) -> dict[str, Any]:
        """The settings without the name."""
        return {key: value for key, value in self.settings.items() if key != "name"}


@dataclass(frozen=True, eq=False)
class Node(Generic[T_co]):
    """One node of the graph of a run. Its fields are all that it depends on, but for those marked `NO_KEY`.

    Its value, which the runtime returns, has the type that stands in brackets.
    """

    def requires(self) -> None:
        """Check that the files and weights of this node are there; torch is not needed for that.

        Raises:
            UserError: something is missing, with how to get it.
        """

    def inputs(self, runtime: Runtime) -> Any:
        """Return what the node depends on as JSON-able content; a node among the fields counts by its key."""
        kept = [each for each in fields(self) if each.metadata.get("key", True)]
        return {each.name: _plain(getattr(self, each.name), runtime) for each in kept}

    def modules(self) -> set[str]:
        """Return the modules whose code makes the node: its own, and those of the classes that it chooses."""
        return {type(self).__module__, *(module for each in self._values(Chosen) for module in each.modules)}

    def code(self) -> str:
        """Return the hash of the code that makes the node."""
        return code_version(*sorted(self.modules()))

    def key(self, runtime: Runtime) -> str:
        """Return 24 hex digits for the node's inputs and code."""
        return digest([type(self).__qualname__, self.inputs(runtime), self.code()])

    def nodes(self) -> Iterator[Node[Any]]:
        """Yield the nodes among the fields, also those within lists and mappings."""
        return self._values(Node)

    def _values(self, kind: type[K]) -> Iterator[K]:
        for each in fields(self):
            yield from _within(getattr(self, each.name), kind)


@dataclass(frozen=True, eq=False)
class Derived(Node[T_co]):
    """A node that costs nothing to compute from others; the cache does not keep it."""

    def derive(self, runtime: Runtime) -> T_co:
        """Return the node's value."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Stage(Node[T_co]):
    """A node whose files the cache keeps below `folder`.

    shared: all processes of a run make it together, and the first one writes it; else each makes stages of its own.
    what: how a person calls it, on the terminal.
    """

    folder: ClassVar[str]
    shared: ClassVar[bool] = False

    @property
    def what(self) -> str:
        """The name of the stage on the terminal."""
        return self.folder.replace("_", " ")

    @property
    def work(self) -> int:
        """How many steps of progress it takes to make."""
        return 1

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Write the stage's files into an empty folder. tick(done, of): called as the work goes on."""
        raise NotImplementedError

    def load(self, runtime: Runtime, folder: Path) -> T_co:
        """Return what the files in the folder hold."""
        raise NotImplementedError


def graph(*nodes: Node[Any]) -> list[Node[Any]]:
    """Return these nodes and all that they depend on, each once and after what it depends on."""
    found: dict[int, Node[Any]] = {}

    def visit(node: Node[Any]) -> None:
        if id(node) not in found:
            for other in node.nodes():
                visit(other)
            found[id(node)] = node

    for node in nodes:
        visit(node)
    return list(found.values())


def _within(value: object, kind: type[K]) -> Iterator[K]:
    if isinstance(value, kind):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _within(each, kind)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _within(each, kind)


def _plain(value: Any, runtime: Runtime) -> Any:
    if isinstance(value, Node):
        return runtime.key(value)
    if isinstance(value, Chosen):
        return value.settings
    if isinstance(value, dict):
        return {key: _plain(each, runtime) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, runtime) for each in value]
    return vars(value) if is_dataclass(value) else value
