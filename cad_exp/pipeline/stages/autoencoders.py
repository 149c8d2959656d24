"""Autoencoders of one hookpoint, trained together from the tokens of all training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.pipeline.stage import Chosen, Derived, Stage, Tick
from cad_exp.pipeline.stages.tokens import AnyTokens

if TYPE_CHECKING:
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.representations.sae.autoencoder import Autoencoder
    from cad_exp.representations.sae.moments import Moments
    from cad_exp.representations.sae.stream import FileShard


@dataclass(frozen=True)
class Plan:
    """One autoencoder that is asked for. width: a number, `auto` or `64x`; frozen: the decoder stays random."""

    k: int
    width: int | str
    seed: int
    frozen: bool = False


@dataclass(frozen=True)
class Recipe:
    """How autoencoders are trained: see `representations.sae.training`. seed: of the order of the tokens."""

    tokens: int
    batch_size: int
    aux: float
    dead_after: int
    seed: int


@dataclass(frozen=True)
class Trained:
    """One autoencoder as it was planned."""

    plan: Plan
    autoencoder: Autoencoder


@dataclass(frozen=True, eq=False)
class Autoencoders(Stage[list[Trained]]):
    """The planned autoencoders of one hookpoint. tokens: of the training images."""

    folder: ClassVar[str] = "autoencoders"
    tokens: tuple[AnyTokens, ...]
    hookpoint: str
    architecture: Chosen
    optimiser: Chosen
    recipe: Recipe
    plans: tuple[Plan, ...]

    @property
    def what(self) -> str:
        """How the terminal calls it."""
        return f"autoencoders of {self.hookpoint}"

    @property
    def work(self) -> int:
        """Tokens to be seen."""
        return self.recipe.tokens

    @property
    def widths(self) -> list[int | str]:
        """The widths that are asked for, each once."""
        return list(dict.fromkeys(plan.width for plan in self.plans))

    def shards(self, runtime: Runtime) -> list[FileShard]:
        """Return the training tokens of the hookpoint."""
        return [each.shard(self.hookpoint) for each in runtime.all(self.tokens, "tokens")]

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Train all autoencoders side by side."""
        from cad_exp.representations.latents import save_moments
        from cad_exp.representations.sae.files import save
        from cad_exp.representations.sae.moments import Moments, width_of
        from cad_exp.representations.sae.stream import Stream, buffer_for
        from cad_exp.representations.sae.training import Member, train

        shards, recipe = self.shards(runtime), self.recipe
        moments = Moments(each.read() for each in shards)
        members = [
            Member(
                {**self.architecture.settings, "k": plan.k},
                width_of(plan.width, moments),
                plan.seed,
                self.optimiser.settings,
                recipe.aux,
                recipe.dead_after,
                plan.frozen,
            )
            for plan in self.plans
        ]
        save_moments(folder, moments)
        stream = Stream(shards, recipe.batch_size, recipe.seed, buffer_for(max(each.size for each in shards)))
        how = (recipe.tokens, runtime.unfinished(self), tick, runtime.device)
        for number, autoencoder in enumerate(train(stream, members, moments, *how)):
            save(folder / str(number), autoencoder, {"hookpoint": self.hookpoint, **vars(self.plans[number])})

    def load(self, runtime: Runtime, folder: Path) -> list[Trained]:
        """Return the autoencoders, in the order of the plans."""
        from cad_exp.representations.sae.files import load

        return [Trained(plan, load(folder / str(number))[0]) for number, plan in enumerate(self.plans)]

    def moments(self, runtime: Runtime) -> Moments:
        """Return mean and covariance of the training tokens."""
        from cad_exp.representations.sae.moments import Moments

        return Moments(each.read() for each in self.shards(runtime))


@dataclass(frozen=True, eq=False)
class Everywhere(Derived["dict[str, Autoencoders]"]):
    """The autoencoders of every hookpoint that the tokens have; which those are, the model says."""

    tokens: tuple[AnyTokens, ...]
    architecture: Chosen
    optimiser: Chosen
    recipe: Recipe
    plans: tuple[Plan, ...]

    def derive(self, runtime: Runtime) -> dict[str, Autoencoders]:
        """Return the stages by hookpoint, made one after another."""
        names = runtime.all(self.tokens, "tokens")[0].hookpoints
        how = (self.architecture, self.optimiser, self.recipe, self.plans)
        stages = {name: Autoencoders(self.tokens, name, *how) for name in names}
        for stage in stages.values():
            runtime.get(stage)
        return stages


def plans(ks: Any, widths: Any, seeds: range, controls: bool) -> Iterator[Plan]:
    """Yield a plan for every k, width and seed; with controls also one with a frozen decoder, of the first seed."""
    for k in ks:
        for width in widths:
            for seed in seeds:
                yield Plan(k, width, seed)
            if controls:
                yield Plan(k, width, seeds[0], frozen=True)
