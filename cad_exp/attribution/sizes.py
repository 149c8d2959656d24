"""What a run holds in the machine's own memory, from numbers alone: noisy latents, trained gates, interactions.

n is the number of components, E that of the numbers in a noisy latent. A number is fp32, 4 bytes, but for indices,
orders and products of rows, which take 8. Scores come on top: 4 bytes for each scored weight.

noisy latents  x and two predictions, as they are read and once more joined
task           one target of the concept's, and once more while it is made; all else lies in the noisy latents. With a
               landing also predictions for its prompt, while the target is made
gates          of every strength: n gates; indices and factors of its edit, were every gate changed
finding them   a step of Adam holds gates, gradients old and new by place and joined, and two moments: 24 n in all. The
               edit sorts and places the components: 52 n. The random edit beside it draws an order of all: 58 n
interactions   the noisy latents twice, and their distances; signs; the sketch twice, while it is scaled, while it is
               shrunk (with the products of its rows), or while what lies along the distance is joined to it
"""

from __future__ import annotations

from dataclasses import dataclass

from cad_exp.attribution.interactions.second_order import FEW, extent

NUMBER = 4  # bytes
INDEX = 8
GATE = NUMBER + INDEX + NUMBER  # of one component at one strength: its gate, its index and factor in the edit
FINDING = 58  # bytes for each component, beside its gates of all strengths
SETS = 56  # the same of interactions among random sets: slopes twice, sums in fp64, and shuffled decks


@dataclass(frozen=True)
class Held:
    """Bytes. latents: noisy latents and the task of gates. gates: found, of all strengths. finding: work on them."""

    latents: int
    gates: int
    finding: int
    interactions: int

    @property
    def most(self) -> int:
        """What is held at the worst moment: gates and interactions are not found at the same time."""
        return self.latents + self.gates + max(self.finding, self.interactions)


def of_latents(rows: int, numbers: int, tensors: int = 3, joined: bool = True) -> int:
    """Return the bytes of noisy latents of one prompt, each of so many numbers."""
    return rows * numbers * tensors * NUMBER * (2 if joined else 1)


def of_task(concept: int, landed: bool, numbers: int) -> int:
    """Return the bytes of what gates are to lose, beside the noisy latents of which it is made.

    concept: noisy latents of the concept. landed: whether another prompt's images take its place.
    """
    return NUMBER * numbers * concept * (3 if landed else 2)


def of_interactions(n: int, latents: int, numbers: int, sketched: bool) -> int:
    """Return the bytes at the worst moment while interactions of n components are measured.

    sketched: whether J is a squared distance, and the rows of a batch can have gates of their own.
    """
    if n <= FEW:
        return 4 * INDEX * n**2 + 3 * NUMBER * latents * numbers
    if not sketched:
        return SETS * n + 3 * NUMBER * latents * numbers
    number, projections = extent(n, latents)
    rows, signs = number * projections, number * projections * numbers
    orthogonal = 3 * NUMBER * signs + NUMBER * number * numbers
    pulled = 2 * NUMBER * rows * n + NUMBER * signs
    shrunk = 2 * NUMBER * rows * n + INDEX * rows**2
    joined = 2 * NUMBER * (rows + number) * n
    return NUMBER * numbers * (3 * latents + 4 * number) + max(orthogonal, pulled, shrunk, joined)
