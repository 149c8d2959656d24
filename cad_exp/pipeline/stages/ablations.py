"""True effects: what J, or a judge of images, says of an ablated model. Answers are kept, for they cost the most."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.data.requests import ImageRequest
from cad_exp.pipeline.stage import NO_KEY, Derived, Stage, Tick
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import PromptLatents
from cad_exp.pipeline.stages.question import Question
from cad_exp.utils.io import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from cad_exp.attribution.attribute import Attribution
    from cad_exp.attribution.game import Game
    from cad_exp.evaluation.fidelity.image_game import ImageGame
    from cad_exp.pipeline.runtime import Runtime


@dataclass(frozen=True, eq=False)
class GameOfJ(Derived["Game"]):
    """J as a function of the gates of one component space, at some rows of noisy latents.

    scores: of this space; they say where its components are, which follows from the model and the kinds of module.
    """

    question: Question
    latents: tuple[PromptLatents, ...]
    rows: tuple[int, ...]
    granularity: str
    kinds: tuple[str, ...]
    scores: Derived[Attribution] = field(metadata=NO_KEY)

    def derive(self, runtime: Runtime) -> Game:
        """Return the game at the noisy latents of the last of `latents`."""
        import torch

        from cad_exp.attribution.game import Game

        scored = runtime.get(self.scores)
        points = runtime.get(self.latents[-1])[torch.tensor(self.rows)]
        return Game(runtime.get(self.question)(points), scored.space(self.granularity))


@dataclass(frozen=True, eq=False)
class GameOfImages(Derived["ImageGame"]):
    """What a judge finds in images of the concept, as a function of the gates of one component space.

    thresholds: of the judge, by which it decides. batch_size: images made at once.
    """

    model: Model
    judge: Judge
    thresholds: dict[str, Any]
    requests: tuple[ImageRequest, ...]
    steps: int
    granularity: str
    kinds: tuple[str, ...]
    scores: Derived[Attribution] = field(metadata=NO_KEY)
    batch_size: int = field(default=64, metadata=NO_KEY)

    def derive(self, runtime: Runtime) -> ImageGame:
        """Return the game; its answers are kept."""
        from cad_exp.evaluation.fidelity.image_game import ImageGame

        scored, model, judge = runtime.get(self.scores), runtime.get(self.model), runtime.get(self.judge)
        space, keep = scored.space(self.granularity), remembering(runtime, self)
        return ImageGame(model, judge, list(self.requests), space, keep, self.batch_size)


@dataclass(frozen=True, eq=False)
class Answers(Stage["Tensor"]):
    """The values of a game for some ablations, (A,) or (A, measures); studies of one game share them.

    gates: digest of the ablations. answer: computes the values.
    """

    folder: ClassVar[str] = "ablations"
    shared: ClassVar[bool] = True
    game: GameOfJ | GameOfImages
    gates: str
    number: int
    answer: Callable[[], Tensor] = field(metadata=NO_KEY)

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Compute the values; what is not finite is written as null."""
        write_json(folder / "values.json", self.answer().tolist())

    def load(self, runtime: Runtime, folder: Path) -> Tensor:
        """Return the values, fp64."""
        import numpy as np
        import torch

        values = json.loads((folder / "values.json").read_text(encoding="utf-8"))
        return torch.from_numpy(np.array(values, dtype=np.float64))


def remembering(runtime: Runtime, game: GameOfJ | GameOfImages) -> Callable[[Tensor, Callable[[], Tensor]], Tensor]:
    """Return what looks up the answer to some gates (A, n) of 0 and 1, and keeps it where it has to be computed."""
    import numpy as np

    def remember(gates: Tensor, answer: Callable[[], Tensor]) -> Tensor:
        bits = blake2b(np.packbits(gates.numpy().astype(bool)).tobytes(), digest_size=16).hexdigest()
        stage = Answers(game, bits, len(gates), answer)
        return stage.load(runtime, runtime.entry(stage))

    return remember


class Remembered:
    """A game of J whose answers are kept."""

    def __init__(self, runtime: Runtime, node: GameOfJ):
        game = runtime.get(node)
        self.game, self.keep, self.n = game, remembering(runtime, node), game.n
        self.objective, self.space, self.intact = game.objective, game.space, game.intact

    def values(self, gates: Tensor) -> Tensor:
        """Return J (A,) of ablations (A, n)."""
        return self.keep(gates, lambda: self.game.values(gates))
