"""Training: the stream, kill and continue, memory, a planted dictionary."""

import subprocess
import sys
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cad_exp.representations.sae import training
from cad_exp.representations.sae.autoencoder import Autoencoder
from cad_exp.representations.sae.controls import RandomDictionary
from cad_exp.representations.sae.measures import measure
from cad_exp.representations.sae.moments import Moments
from cad_exp.representations.sae.selection import Threshold, TopK
from cad_exp.representations.sae.stream import FileShard, Stream, buffer_for
from cad_exp.representations.sae.training import Member, train
from cad_exp.utils.errors import UserError


class Rows:
    """A shard in memory that counts how often it is read."""

    def __init__(self, tokens: torch.Tensor):
        self.tokens, self.reads = tokens, 0

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self) -> torch.Tensor:
        self.reads += 1
        return self.tokens


def numbered(*lengths: int) -> list[Rows]:
    """Shards of tokens, each of which is its own number."""
    return [Rows(part[:, None]) for part in torch.arange(float(sum(lengths))).split(list(lengths))]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7), st.integers(1, 4), st.integers(0, 99),
    st.integers(0, 20),
)  # fmt: skip
def test_a_stream(lengths: list[int], batch_size: int, buffer: int, seed: int, start: int):
    """Every epoch gives each token at most once, in another order; from step n it is what it would have been."""
    if sum(lengths) < batch_size:
        with pytest.raises(UserError, match="do not fill a batch"):
            Stream(numbered(*lengths), batch_size, seed, buffer)
        return
    stream = Stream(numbered(*lengths), batch_size, seed, buffer)
    found = list(islice(stream.batches(), start + 2 * stream.per_epoch))
    assert all(len(batch) == batch_size for batch in found)
    epoch = torch.cat(found[: stream.per_epoch]).flatten().tolist()
    assert len(set(epoch)) == len(epoch) == stream.per_epoch * batch_size and set(epoch) <= set(range(sum(lengths)))
    later = list(islice(Stream(numbered(*lengths), batch_size, seed, buffer).batches(start), 5))
    wanted = list(islice(stream.batches(), start, start + 5))
    assert all(torch.equal(*pair) for pair in zip(wanted, later, strict=True))


def test_a_stream_shuffles_and_reads_each_shard_once_an_epoch():
    shards = numbered(*[50] * 8)
    stream = Stream(shards, 40, seed=1, buffer=2)
    first, second = (torch.cat(list(islice(stream.batches(start), 10))).flatten() for start in (0, 10))
    assert [shard.reads for shard in shards] == [2] * 8
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(400))
    assert not torch.equal(first, second) and first.diff().abs().median() > 10
    other = torch.cat(list(islice(Stream(shards, 40, seed=2, buffer=2).batches(), 10))).flatten()
    assert not torch.equal(first, other)


def test_a_file_is_a_shard(tmp_path):
    tokens = torch.arange(24.0).view(2, 3, 4)
    save_file({"up": tokens.half(), "down": tokens[:1]}, tmp_path / "a.safetensors")
    shard = FileShard(tmp_path / "a.safetensors", "up")
    assert len(shard) == 6 and len(FileShard(tmp_path / "a.safetensors", "down")) == 3
    assert torch.equal(shard.read(), tokens.view(6, 4)) and shard.read().dtype == torch.float32


DATA = torch.randn(600, 8, generator=torch.Generator().manual_seed(7)) * torch.linspace(3, 0.1, 8) + 2
MEMBERS = [
    Member({"name": "topk", "k": 2}, 16, seed=0, dead_after=100),
    Member({"name": "batchtopk", "k": 2}, 16, seed=1, optimiser={"name": "adam"}, dead_after=100),
    Member({"name": "matryoshka", "k": 3}, 24, seed=2, optimiser={"name": "sign"}, dead_after=100),
    Member({"name": "topk", "k": 2}, 16, seed=0, frozen=True),
]


def trained(members: list[Member], tokens: int = 2000, seed: int = 0, **more) -> list[Autoencoder]:
    shards = [Rows(part) for part in DATA.split(100)]
    return train(Stream(shards, 50, seed, buffer=2), members, Moments([DATA]), tokens, **more)


def same(one: list[Autoencoder], two: list[Autoencoder]) -> bool:
    return all(
        torch.equal(a.tensors[name], b.tensors[name]) and a.selects == b.selects
        for a, b in zip(one, two, strict=True)
        for name in a.tensors
    )


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [50, 800, 1950])
def test_kill_and_continue_to_the_same_bytes(tmp_path, monkeypatch, at: int):
    monkeypatch.setattr(training, "EVERY", 0.0)
    whole, file = trained(MEMBERS), tmp_path / "new" / "checkpoint"

    def die(done: int, _: int) -> None:
        if done > at:
            raise Killed

    with pytest.raises(Killed):
        trained(MEMBERS, checkpoint=file, progress=die)
    seen: list[tuple[int, int]] = []
    again = trained(MEMBERS, checkpoint=file, progress=lambda *step: seen.append(step))
    assert same(whole, again)
    assert seen == [(done, 2000) for done in range(at + 50, 2050, 50)], "what was done is not done again"


def test_a_damaged_checkpoint_is_told_and_left(tmp_path, capsys):
    file = tmp_path / "checkpoint"
    file.write_bytes(b"half of a file")
    assert same(trained(MEMBERS[:1], checkpoint=file), trained(MEMBERS[:1]))
    assert "damaged: starting over" in capsys.readouterr().out and not file.exists()


def test_the_same_seed_gives_the_same_bytes():
    """Whoever trains beside it; another seed, of the start or of the stream, gives another."""
    together = trained(MEMBERS)
    assert same(trained(MEMBERS), together)
    assert same([trained([member])[0] for member in MEMBERS], together)
    assert not same(trained(MEMBERS, seed=1), together)
    other = trained([Member({"name": "topk", "k": 2}, 16, seed=5, dead_after=100)])
    assert not same(other, together[:1])


def test_what_is_trained():
    """Trained on tokens in their own units, better than at the start; a frozen decoder stays where it began."""
    mean = DATA.mean(0)
    short, long = (
        [measure(each, [DATA[:, None]], mean).fvu for each in trained(MEMBERS, tokens)] for tokens in (50, 8000)
    )
    assert all(late < 0.8 * early for early, late in zip(short, long, strict=True))
    topk, batch, nested, frozen = trained(MEMBERS)
    assert isinstance(topk.selects, TopK) and isinstance(batch.selects, Threshold)
    assert measure(batch, [DATA[:, None]], mean).l0.mean() == pytest.approx(2, abs=0.5)
    assert measure(nested, [DATA[:, None]], mean).l0.mean() == pytest.approx(3, abs=0.75)
    for sae in (topk, batch, nested):
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.full((sae.width,), Moments([DATA]).scale))
    first = trained([MEMBERS[3]], tokens=50)[0]
    torch.testing.assert_close(frozen.W_dec, first.W_dec)
    assert not torch.allclose(frozen.W_enc, first.W_enc)


def test_auxk_is_for_latents_that_have_not_acted_for_long(monkeypatch):
    """As counted here: since more than `dead_after` tokens, which begin with the training."""
    asked, idle = [], torch.zeros(40, dtype=torch.long)
    differentiate = training.gradients

    def watched(autoencoder, x, prefixes, aux):
        nonlocal idle
        assert (aux.dead if aux else torch.zeros(40, dtype=torch.bool)).tolist() == (idle > 300).tolist()
        asked.append(aux)
        outcome = differentiate(autoencoder, x, prefixes, aux)
        idle = torch.where(outcome.acted, 0, idle + len(x))
        return outcome

    monkeypatch.setattr(training, "gradients", watched)
    trained([Member({"name": "topk", "k": 1}, 40, 0, aux=0.25, dead_after=300)])
    assert asked[:7] == [None] * 7 and len(asked) == 40
    assert any(asked) and all((aux.weight, aux.k) == (0.25, 4) for aux in asked if aux)


def sums_of_planted(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, each the sum of 3 of 48 random directions in 24 dimensions, and these directions."""
    make = torch.Generator().manual_seed(3)
    planted = torch.nn.functional.normalize(torch.randn(48, 24, generator=make), dim=1)
    chosen = torch.rand(number, 48, generator=make).topk(3).indices
    values = 1 + torch.rand(number, 3, generator=make)
    return (planted[chosen] * values[..., None]).sum(1), planted


def test_a_planted_dictionary_is_recovered():
    """Random directions are far from it."""
    tokens, planted = sums_of_planted(20_000)
    moments = Moments([tokens])
    stream = Stream([Rows(part) for part in tokens.split(5000)], 256, seed=0)
    found = train(stream, [Member({"name": "topk", "k": 3}, 64, seed=s) for s in range(2)], moments, 150_000)
    random = RandomDictionary.fitted(64, 3, 0, moments, [tokens])

    def match(directions: torch.Tensor) -> float:
        return float((planted @ torch.nn.functional.normalize(directions, dim=1).T).max(1).values.mean())

    assert min(match(sae.W_dec) for sae in found) > 0.9 and match(random.directions) < 0.65
    trained_fvu = measure(found[0], [tokens[:, None]], moments.mean.float()).fvu
    assert trained_fvu < 0.2 * measure(random, [tokens[:, None]], moments.mean.float()).fvu


MEMORY = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from cad_exp.representations.sae.moments import Moments
from cad_exp.representations.sae.stream import FileShard, Stream
from cad_exp.representations.sae.training import Member, train

folder, count = Path(sys.argv[1]), 40
tokens = {"x": torch.randn(8, 512, 512).half()}
for number in range(count):  # 4 MiB each
    save_file(tokens, folder / f"{number}.safetensors")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
shards = [FileShard(folder / f"{number}.safetensors", "x") for number in range(count)]
moments = Moments([torch.randn(1024, 512)])
train(Stream(shards[:4], 2048, 0, buffer=2), [Member({"name": "topk", "k": 2}, 32, 0)], moments, 4096)
before = peak()
train(Stream(shards, 2048, 0, buffer=2), [Member({"name": "topk", "k": 2}, 32, 0)], moments, count * 4096)
print(sum(file.stat().st_size for file in folder.iterdir()) / 2**20, peak() - before)
"""


def test_so_many_shards_are_held_as_memory_allows(tmp_path):
    """16 small ones, those that 2 GiB hold of larger ones, and one that is larger still."""
    assert [buffer_for(size) for size in (1, 2**27, 2**28, 2**31, 2**33)] == [16, 16, 8, 1, 1]
    save_file({"x": torch.zeros(2, 3, 4, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    shard = FileShard(tmp_path / "x.safetensors", "x")
    assert shard.size == 2 * 3 * 4 * 4 == shard.read().numel() * shard.read().element_size()


def test_shards_larger_than_memory(tmp_path):
    """160 MiB of shards, 320 MiB in fp32, pass through a training whose memory does not grow by 60."""
    result = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    size, grown = map(float, result.stdout.split())
    assert size >= 160 and grown < 60
