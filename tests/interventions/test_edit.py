"""Edits: what is selected, and that applying, undoing, saving and exporting do exactly what they say."""

from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cad_exp.attribution.attribute import Attribution
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.methods import make_edit
from cad_exp.interventions.selection import no_edit, random_edit, select
from cad_exp.interventions.spaces import CROSS, FF, SELF, Site, find_sites, make_granularity
from cad_exp.utils.errors import UserError

SITES = [Site("0", "0", FF, (3, 6)), Site("1", "1", FF, (6, 4)), Site("2", "2", CROSS, (4, 4), heads=2)]


def toy(scores=None, names=("weight", "neuron", "head", "layer"), seed=0):
    """An attribution of three matrices with random or given weight scores."""
    generator = torch.Generator().manual_seed(seed)
    weights = {site.module: torch.randn(site.shape, generator=generator) for site in SITES}
    if scores is not None:
        parts = torch.tensor(scores, dtype=torch.float32).split([site.size for site in SITES])
        weights = {site.module: part.view(site.shape) for site, part in zip(SITES, parts, strict=True)}
    spaces = {name: make_granularity(name).on(SITES) for name in names}
    return Attribution({name: space.join(weights) for name, space in spaces.items()}, spaces, {"prompt": "x"})


def numbers(edit, attribution):
    return attribution.space(edit.meta["granularity"]).components(edit)


SIZE = sum(site.size for site in SITES)


@settings(max_examples=80, deadline=None)
@given(
    scores=st.lists(st.integers(-3, 3), min_size=SIZE, max_size=SIZE),
    ratio=st.floats(0.001, 1),
    scope=st.sampled_from(["row", "layer", "global"]),
    sign=st.sampled_from(["positive", "negative"]),
)
def test_select_properties(scores, ratio, scope, sign):
    attribution = toy(scores, ("weight",))
    space, values = attribution.spaces["weight"], attribution.scores["weight"]
    values = values if sign == "positive" else -values
    edit = select(attribution, "weight", sign, ratio=ratio, scope=scope)
    chosen, groups = set(numbers(edit, attribution).tolist()), space.groups(scope)
    requested = 0
    for group in groups.unique():
        members = (groups == group).nonzero().flatten().tolist()
        k = max(1, ceil(ratio * len(members) - 1e-9))
        requested += k
        # The slow reference: best first, the lower index first among equals, never the other sign.
        ranked = sorted(members, key=lambda i: (-values[i].item(), i))[:k]
        assert {i for i in ranked if values[i] > 0} == chosen & set(members)
    assert edit.meta["achieved"] == len(chosen) <= edit.meta["requested"] == requested


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    ratio=st.floats(0.01, 1),
    case=st.sampled_from(
        [("weight", "row"), ("weight", "layer"), ("weight", "global"), ("neuron", "layer"), ("neuron", "global")]
        + [("head", "layer"), ("head", "global"), ("layer", "global")]
    ),
)
def test_random_edit_has_equal_budget_in_every_group(seed, ratio, case):
    name, scope = case
    attribution = toy(seed=seed)
    like = select(attribution, name, ratio=ratio, scope=scope)
    other = random_edit(like, attribution, name, seed)
    groups = attribution.spaces[name].groups(scope)
    ours, theirs = (groups[numbers(edit, attribution)].bincount(minlength=40).tolist() for edit in (like, other))
    assert ours == theirs and other.meta["achieved"] == like.meta["achieved"]
    assert (
        numbers(other, attribution).tolist()
        == numbers(random_edit(like, attribution, name, seed), attribution).tolist()
    )


@pytest.mark.parametrize("name", ["weight", "neuron", "head", "layer"])
def test_a_factor_may_be_a_whole_number(name):
    """-1 of a library call is as good as -1.0."""
    attribution = toy(seed=0)
    like = select(attribution, name, ratio=0.3, factor=-1)
    assert attribution.spaces[name].factors(like).tolist() == [-1.0] * like.meta["achieved"]
    assert random_edit(like, attribution, name, 0).factor == -1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 14), name=st.sampled_from(["neuron", "head"]))
def test_random_edit_has_as_many_weights(seed, count, name):
    """Neurons of 3, 6 and 4 weights: a draw by number alone would change another number of weights."""
    sites = [*SITES, Site("3", "3", CROSS, (9, 8), heads=4)]
    space = make_granularity(name, [FF, CROSS] if name == "neuron" else None).on(sites)
    generator = torch.Generator().manual_seed(seed)
    attribution = Attribution({name: torch.rand(space.n, generator=generator)}, {name: space})
    like = select(attribution, name, count=count)
    other = random_edit(like, attribution, name, seed)
    assert other.meta["achieved"] == like.meta["achieved"]
    sizes = space.sizes()
    if other.meta["changed"] != like.meta["changed"]:  # then nothing else of these sizes was there to draw
        mine = torch.zeros(len(sizes), dtype=torch.bool)
        mine[space.components(like)] = True
        assert all(mine[sizes == size].all() or not mine[sizes == size].any() for size in sizes.unique())


def test_random_edit_is_another_one_where_every_layer_has_a_size_of_its_own():
    attribution = Attribution({"layer": torch.tensor([3.0, 2.0, 1.0])}, {"layer": make_granularity("layer").on(SITES)})
    like = select(attribution, "layer", count=1)
    drawn = {tuple(random_edit(like, attribution, "layer", seed).indices) for seed in range(8)}
    assert len(drawn) > 1 and all(len(modules) == 1 for modules in drawn)


def test_weights_of_components():
    assert make_granularity("neuron", [FF]).on(SITES).sizes().tolist() == [3] * 6 + [6] * 4
    assert make_granularity("head").on(SITES).sizes().tolist() == [8, 8]
    assert make_granularity("layer").on(SITES).sizes().tolist() == [18, 24, 16]
    assert make_granularity("weight").on(SITES).sizes().tolist() == [1] * (18 + 24 + 16)


def test_random_edit_follows_its_seed():
    attribution = toy()
    like = select(attribution, "weight", ratio=0.2)
    draws = {tuple(numbers(random_edit(like, attribution, "weight", seed), attribution).tolist()) for seed in range(5)}
    assert len(draws) == 5


def test_never_floored_to_nothing():
    attribution = toy([1.0] * SIZE)
    edit = select(attribution, "weight", ratio=0.001, scope="row")
    assert edit.meta["achieved"] == sum(site.shape[0] for site in SITES)
    assert select(attribution, "head", ratio=1e-9).meta["achieved"] == 1


def test_ratio_is_taken_as_written():
    space = make_granularity("neuron").on([Site("a", "a", FF, (2, 30))])
    attribution = Attribution({"neuron": torch.ones(30)}, {"neuron": space})
    for ratio, k in ((0.1, 3), (0.7, 21), (0.3, 9), (0.1001, 4), (1, 30)):
        assert select(attribution, "neuron", ratio=ratio).meta["achieved"] == k


@pytest.mark.parametrize("ratio, per_row", [(0.2, (1, 0, 0)), (0.25, (1, 1, 1)), (0.5, (3, 2, 2)), (1, (6, 4, 4))])
def test_floor_leaves_short_rows_alone(ratio, per_row):
    """Rows of 6, 4 and 4 weights: floor(0.2 x 6) = 1, floor(0.2 x 4) = 0."""
    edit = select(toy([1.0] * SIZE), "weight", ratio=ratio, scope="row", rounding="floor")
    expected = {site.module: site.shape[0] * k for site, k in zip(SITES, per_row, strict=True) if k}
    assert {name: len(indices) for name, indices in edit.indices.items()} == expected
    assert edit.meta["requested"] == edit.meta["achieved"] == sum(expected.values())
    assert edit.meta["rounding"] == "floor"


def test_floor_of_nothing_is_refused():
    with pytest.raises(UserError, match="leaves nothing of ratio=0.1"):
        select(toy(), "weight", ratio=0.1, scope="row", rounding="floor")
    with pytest.raises(UserError, match="did you mean 'floor'"):
        select(toy(), "weight", ratio=0.1, rounding="flor")


def test_ties_and_sign():
    space = make_granularity("neuron").on(SITES[:1])
    attribution = Attribution({"neuron": torch.tensor([0.0, 2, -1, 2, 2, -1])}, {"neuron": space})
    assert select(attribution, "neuron", count=2).indices["0"].tolist() == [1, 3]
    assert select(attribution, "neuron", "negative", count=1).indices["0"].tolist() == [2]
    edit = select(attribution, "neuron", count=6)
    assert edit.indices["0"].tolist() == [1, 3, 4] and (edit.meta["requested"], edit.meta["achieved"]) == (6, 3)


def test_kinds():
    attribution = toy([1.0] * SIZE)
    edit = select(attribution, "weight", ratio=1, kinds=[CROSS])
    assert set(edit.indices) == {"2"} and edit.meta["achieved"] == edit.meta["components"] == 16
    assert set(random_edit(edit, attribution).indices) == {"2"}
    with pytest.raises(UserError, match="attribution has no self-attention"):
        select(attribution, "neuron", ratio=1, kinds=[SELF])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "either ratio or count"),
        ({"ratio": 0.1, "count": 1}, "either ratio or count"),
        ({"ratio": 0}, "ratio=0 is out of range"),
        ({"ratio": 1.5}, "ratio=1.5 is out of range"),
        ({"count": 0}, "count=0 is out of range"),
        ({"count": 3, "scope": "layer"}, "use scope=global"),
        ({"ratio": 0.1, "scope": "rows"}, "did you mean 'row'"),
        ({"ratio": 0.1, "sign": "postive"}, "did you mean 'positive'"),
    ],
)
def test_bad_requests(settings, says):
    with pytest.raises(UserError, match=says):
        select(toy(), "weight", **settings)


def test_names():
    attribution = toy()
    assert make_edit("erase", attribution, "neuron", ratio=0.3).meta["sign"] == "positive"
    assert make_edit("amplify", attribution, "neuron", ratio=0.3).meta["sign"] == "negative"
    assert make_edit("random", attribution, "neuron", ratio=0.3, seed=1).meta["edit"] == "random"
    assert make_edit("none", attribution, "neuron").indices == {}
    with pytest.raises(UserError, match="unknown method 'erasee': did you mean 'erase'"):
        make_edit("erasee", attribution, "neuron", ratio=0.3)


def test_apply_by_hand():
    net = nn.Sequential(nn.Linear(3, 2))
    net[0].weight.data = torch.tensor([[1.0, 2, float("nan")], [4, 5, 6]])
    before, bias = net[0].weight.data.clone(), net[0].bias.data.clone()
    with Edit({"0": torch.tensor([0, 2])}, "column", 0.0).apply(net):
        assert net[0].weight.tolist() == [[0, 2, 0], [0, 5, 0]] and torch.equal(net[0].bias.data, bias)
    torch.testing.assert_close(net[0].weight.data, before, rtol=0, atol=0, equal_nan=True)
    applied = Edit({"0": torch.tensor([1, 3])}, "entry", -2.0).apply(net)
    assert net[0].weight[:, :2].tolist() == [[1, -4], [-8, 5]]
    applied.undo()
    applied.undo()
    torch.testing.assert_close(net[0].weight.data, before, rtol=0, atol=0, equal_nan=True)


def test_a_factor_near_one_counts_in_half_precision():
    """Rounded to bfloat16 first, 1.02 would be 1.0234: all weights of a component would be too large."""
    net = nn.Sequential(nn.Linear(64, 3, bias=False)).bfloat16()
    before = net[0].weight.data.clone()
    with Edit({"0": torch.arange(64)}, "column", factors={"0": torch.full((64,), 1.02)}).apply(net):
        assert torch.equal(net[0].weight.data, (before.float() * 1.02).bfloat16())
    assert torch.equal(net[0].weight.data, before)


@pytest.mark.parametrize("granularity", ["weight", "neuron", "head", "layer"])
def test_apply_and_undo_are_exact(granularity, tiny_model, tiny_attribution):
    before, sites = tiny_model.fingerprint(), find_sites(tiny_model.denoiser)
    edit = select(tiny_attribution, granularity, ratio=0.1, factor=0.0)
    old = {name: tensor.clone() for name, tensor in tiny_model.denoiser.state_dict().items()}
    with edit.apply(tiny_model.pipe):
        changed = {n for n, tensor in tiny_model.denoiser.state_dict().items() if not torch.equal(tensor, old[n])}
        scores = {s.module: (tiny_model.denoiser.get_submodule(s.module).weight == 0).float() for s in sites}
        space = tiny_attribution.space(granularity)
        zeroed = (space.join(scores) == space.sizes()).nonzero().flatten()
        assert torch.equal(zeroed, space.components(edit)), "exactly the selected components are zero"
        assert edit.meta["changed"] == sum(int(score.sum()) for score in scores.values())
    assert changed == {f"{name}.weight" for name in edit.indices}
    assert tiny_model.fingerprint() == before


def test_undone_after_an_exception_and_in_layers(tiny_model, tiny_attribution):
    before = tiny_model.fingerprint()
    first, second = (select(tiny_attribution, "layer", ratio=r, factor=f) for r, f in ((0.2, 0.3), (0.5, 3.0)))
    with pytest.raises(RuntimeError), first.apply(tiny_model):
        with second.apply(tiny_model.denoiser):
            raise RuntimeError
    assert tiny_model.fingerprint() == before


def test_file(tmp_path, tiny_attribution, tiny_model):
    edit = select(tiny_attribution, "weight", "negative", ratio=0.01, factor=0.5)
    path = edit.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(path)
    assert (loaded.unit, loaded.factor, loaded.meta) == (edit.unit, edit.factor, edit.meta)
    assert loaded.indices.keys() == edit.indices.keys()
    assert all(torch.equal(loaded.indices[name], indices) for name, indices in edit.indices.items())
    assert loaded.meta["fingerprint"] == tiny_model.fingerprint() and loaded.meta["prompt"] == "church"
    assert Edit.load(no_edit().save(tmp_path / "none.safetensors")).indices == {}


def test_a_file_of_somebody_else_is_not_written_over(tmp_path):
    edit, file = Edit({"a": torch.tensor([1])}), tmp_path / "edit.safetensors"
    file.write_text("precious")
    for place in (file, tmp_path):
        with pytest.raises(UserError, match="is no edit file of cad_exp and would be overwritten"):
            edit.save(place)
    assert file.read_text() == "precious"
    other = Edit({"a": torch.tensor([2])})
    assert Edit.load(other.save(edit.save(tmp_path / "own.safetensors"))).indices["a"].tolist() == [2]


def test_bad_files(tmp_path, tiny_attribution, tiny_latents):
    path = select(tiny_attribution, "neuron", ratio=0.01).save(tmp_path / "edit.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="damaged"):
        Edit.load(path)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="damaged"):
        Edit.load(path)
    with pytest.raises(UserError, match="no edit file of cad_exp"):
        Edit.load(tiny_latents.save(tmp_path / "noisy_latents.safetensors"))
    with pytest.raises(UserError, match="no edit file at"):
        Edit.load(tmp_path / "none.safetensors")


def test_wrong_model_is_left_alone(tiny_model):
    before, site = tiny_model.fingerprint(), find_sites(tiny_model.denoiser)[0]
    for name, says in (("up.nowhere", "no module 'up.nowhere'"), (site.module, "does not fit")):
        edit = Edit({find_sites(tiny_model.denoiser)[1].module: torch.tensor([0]), name: torch.tensor([10_000])})
        with pytest.raises(UserError, match=says):
            edit.apply(tiny_model)
    with pytest.raises(UserError, match="no denoiser"):
        Edit({}).apply(3)
    assert tiny_model.fingerprint() == before


def test_export_is_an_ordinary_checkpoint(tmp_path, tiny_model, tiny_attribution):
    from diffusers import StableDiffusionPipeline

    before = tiny_model.fingerprint()
    edit = select(tiny_attribution, "neuron", ratio=0.1)
    folder = edit.export(tiny_model.pipe, tmp_path / "out" / "edited")
    assert tiny_model.fingerprint() == before
    plain = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    with edit.apply(tiny_model):
        applied = tiny_model.denoiser.state_dict()
        assert all(torch.equal(tensor, applied[name]) for name, tensor in plain.unet.state_dict().items())
        assert tiny_model.fingerprint() != before
    assert [file.name for file in folder.parent.iterdir()] == ["edited"]
    with pytest.raises(UserError, match="not empty"):
        edit.export(tiny_model, folder)


def whole(model, seed=0):
    """An edit that replaces two parameters and, by index, a part of a third."""
    generator, first, second, third = torch.Generator().manual_seed(seed), *find_sites(model.denoiser)[:3]
    new = {f"{s.module}.weight": torch.randn(s.shape, generator=generator) for s in (first, second)}
    return Edit({third.module: torch.tensor([1, 3])}, "column", 0.0, {"edit": "test"}, new)


def test_replaced_parameters_are_put_back_bit_for_bit(tiny_model):
    edit, before = whole(tiny_model), tiny_model.fingerprint()
    old = {name: tensor.clone() for name, tensor in tiny_model.denoiser.state_dict().items()}
    with edit.apply(tiny_model), whole(tiny_model, 1).apply(tiny_model.pipe):
        assert torch.equal(
            tiny_model.denoiser.state_dict()[min(edit.replaced)], whole(tiny_model, 1).replaced[min(edit.replaced)]
        )
    with edit.apply(tiny_model):
        now = tiny_model.denoiser.state_dict()
        changed = {name for name, tensor in now.items() if not torch.equal(tensor, old[name])}
        assert changed == {*edit.replaced, *(f"{name}.weight" for name in edit.indices)}
        assert all(torch.equal(now[name], new) for name, new in edit.replaced.items())
    assert tiny_model.fingerprint() == before
    assert Edit({}).empty and not edit.empty and not Edit({}, replaced=edit.replaced).empty


def test_replaced_parameters_in_a_file(tmp_path, tiny_model):
    edit = whole(tiny_model)
    loaded = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert loaded.replaced.keys() == edit.replaced.keys() and loaded.indices.keys() == edit.indices.keys()
    assert all(torch.equal(loaded.replaced[name], new) for name, new in edit.replaced.items())
    assert loaded.digest() == edit.digest() and loaded.meta == edit.meta
    digests = {edit.digest(), whole(tiny_model, 1).digest(), Edit({}).digest(), Edit(edit.indices).digest()}
    assert len({*digests, Edit({}, replaced=edit.replaced).digest()}) == 5


def test_replaced_parameters_are_exported(tmp_path, tiny_model):
    from diffusers import StableDiffusionPipeline

    edit, before = whole(tiny_model), tiny_model.fingerprint()
    plain = StableDiffusionPipeline.from_pretrained(edit.export(tiny_model, tmp_path / "out"), safety_checker=None)
    assert tiny_model.fingerprint() == before
    with edit.apply(tiny_model):
        applied = tiny_model.denoiser.state_dict()
        assert all(torch.equal(tensor, applied[name]) for name, tensor in plain.unet.state_dict().items())


def test_replaced_parameters_of_another_model_are_refused(tiny_model):
    before, name = tiny_model.fingerprint(), f"{find_sites(tiny_model.denoiser)[0].module}.weight"
    with pytest.raises(UserError, match="does not fit"):
        Edit({}, replaced={name: torch.zeros(2, 2)}).apply(tiny_model)
    with pytest.raises(UserError, match="no parameter 'nowhere.weight'"):
        Edit({}, replaced={"nowhere.weight": torch.zeros(2, 2)}).apply(tiny_model)
    assert tiny_model.fingerprint() == before
