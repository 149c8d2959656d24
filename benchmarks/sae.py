"""Row 9: sparse autoencoders, ours against sparsify and dictionary_learning on the same tokens.

Tokens of guided trajectories are split by trajectory. Everyone trains on the same batches of one stream, as wide and as
sparse as the others; everyone's rate is the best of its own on validation trajectories; what counts are the test ones.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from benchmarks.measure import Bench, Row, row
from benchmarks.sae_rivals import DictionaryLearning, Sparsify, missing
from cad_exp.mini.labelled import drawn
from cad_exp.representations.hookpoints import choose_hookpoints
from cad_exp.representations.sae import measures
from cad_exp.representations.sae.autoencoder import Autoencoder
from cad_exp.representations.sae.moments import Moments
from cad_exp.representations.sae.stream import Stream
from cad_exp.representations.sae.training import Member, train
from cad_exp.representations.tokens import Walking, walked

SITE, WIDTH, K, BATCH = "up_blocks.0.attentions.1", 1024, 16, 1024
Fit = Callable[["Data", int, int, float], Autoencoder]  # tokens, seed, rate


@dataclass(frozen=True)
class Part:
    """Some trajectories' tokens as a shard in memory."""

    tokens: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self) -> Tensor:
        return self.tokens


class Data:
    """Tokens (trajectories, tokens, features) fp32: 70 % to learn from, 10 % to choose rates by, 20 % for tests."""

    def __init__(self, tokens: Tensor):
        learned, self.validation, self.test = tokens.split(_shares(len(tokens)))
        self.moments = Moments(learned.flatten(0, 1).split(65_536))
        self.parts = [Part(part) for part in learned.flatten(0, 1).split(16_384)]

    @classmethod
    def of(cls, bench: Bench) -> "Data":
        """Walk the captions of drawings with guidance."""
        model, number = bench.load(), bench.size(640, 20)
        captions, sites = drawn(range(number), 0).captions, choose_hookpoints(model, [SITE])
        walking = Walking(steps=bench.size(25, 8), guidance=3.0)
        starts = range(0, number, 32)
        parts = [walked(model, captions[n : n + 32], range(number)[n : n + 32], sites, walking) for n in starts]
        return cls(torch.cat([part.values[SITE] for part in parts]))

    def stream(self, seed: int) -> Stream:
        return Stream(self.parts, BATCH, seed)

    def scaled(self, seed: int) -> Iterator[Tensor]:
        """Batches as the peers get them: centred, with a mean square of 1, as ours are inside `train`."""
        mean, scale = self.moments.mean.float(), self.moments.scale
        return ((x - mean) / scale for x in self.stream(seed).batches())

    def measured(self, autoencoder: Autoencoder, part: Tensor) -> measures.Fit:
        return measures.measure(autoencoder, [part], part.flatten(0, 1).mean(0))


@dataclass(frozen=True)
class Contender:
    """Who trains, what must be installed for it, and among which rates it chooses."""

    name: str
    library: str
    fit: Fit
    rates: Sequence[float]


def _ours(optimiser: str) -> Fit:
    def fit(data: Data, tokens: int, seed: int, rate: float) -> Autoencoder:
        member = Member({"name": "topk", "k": K}, WIDTH, seed, {"name": optimiser, "lr": rate})
        return train(data.stream(seed), [member], data.moments, tokens)[0]

    return fit


def _peer(trainer: Callable[..., Autoencoder]) -> Fit:
    def fit(data: Data, tokens: int, seed: int, rate: float) -> Autoencoder:
        steps, d = tokens // BATCH, len(data.moments.mean)
        found = trainer(islice(data.scaled(seed), steps), steps, d, WIDTH, K, seed, rate)
        return found.rescaled(data.moments.mean.float(), data.moments.scale)

    return fit


@dataclass(frozen=True)
class Found:
    """Of all seeds: mean FVU, mean share of dead latents, median tokens a second."""

    rate: float
    fvu: float
    dead: float
    speed: float


OURS = Contender("ours", "torch", _ours("annealed"), (0.008, 0.016, 0.032))
PEERS = (
    Contender("sparsify, Signum", "sparsify", _peer(Sparsify("signum")), (0.005, 0.01, 0.02)),
    Contender("sparsify, Adam", "sparsify", _peer(Sparsify("adam")), (0.008, 0.016, 0.032)),
    Contender("dictionary_learning", "dictionary_learning", _peer(DictionaryLearning()), (0.008, 0.016, 0.032)),
)


def rows(bench: Bench) -> Iterator[Row]:
    """FVU on test trajectories at equal tokens, and tokens a second, with three seeds in turn.

    Ours has AuxK; the peers call latents dead after ten million tokens only, and so do without.
    """
    data = Data.of(bench)
    there = [OURS, *(peer for peer in PEERS if not missing(peer.library))]
    lacking = sorted({missing(peer.library) for peer in PEERS if missing(peer.library)})
    for tokens in (bench.size(205_000, 2_048), bench.size(800_000, 4_096)):
        rates = {each.name: _best_rate(data, each, tokens, bench) for each in there}
        yield from _compared(tokens, _in_turn(data, there, rates, tokens, bench.repeats), lacking)


def _best_rate(data: Data, each: Contender, tokens: int, bench: Bench) -> float:
    """Of another seed than those that are measured."""
    rates = each.rates[: bench.size(3, 1)]
    return min(rates, key=lambda rate: data.measured(each.fit(data, tokens, 100, rate), data.validation).fvu)


def _in_turn(
    data: Data, there: Sequence[Contender], rates: dict[str, float], tokens: int, repeats: int
) -> dict[str, Found]:
    fits: dict[str, list[measures.Fit]] = {each.name: [] for each in there}
    speeds: dict[str, list[float]] = {each.name: [] for each in there}
    for seed in range(repeats):
        for each in there:
            start = time.perf_counter()
            made = each.fit(data, tokens, seed, rates[each.name])
            speeds[each.name].append(tokens / (time.perf_counter() - start))
            fits[each.name].append(data.measured(made, data.test))
    return {
        name: Found(
            rates[name],
            statistics.mean(fit.fvu for fit in fits[name]),
            statistics.mean(fit.dead for fit in fits[name]),
            statistics.median(speeds[name]),
        )
        for name in fits
    }


def _compared(tokens: int, found: dict[str, Found], lacking: list[str]) -> Iterator[Row]:
    peers, ours = {name: each for name, each in found.items() if name != OURS.name}, found[OURS.name]
    head = f"autoencoder, {tokens:,} tokens: "
    told = [f"{name} {each.fvu:.4f} at rate {each.rate:g}, {each.dead:.1%} dead" for name, each in found.items()]
    if lacking:
        told.append(f"for the other peers: {' and '.join(lacking)}")
    best = min((each.fvu for each in peers.values()), default=None)
    yield row(head + "FVU", "", ours.fvu, best, best and ours.fvu / best, "<= 1", "; ".join(told))
    for library, target in (("sparsify", ">= 1.15"), ("dictionary_learning", ">= 2")):
        fastest = max((each.speed for name, each in peers.items() if name.startswith(library)), default=None)
        ratio = fastest and ours.speed / fastest
        yield row(f"{head}speed against {library}", "tokens/s", ours.speed, fastest, ratio, target, missing(library))


def _shares(number: int) -> list[int]:
    validation, test = max(1, number // 10), max(1, number // 5)
    return [number - validation - test, validation, test]
