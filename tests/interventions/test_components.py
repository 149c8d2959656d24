"""The component map: sites found by class, counts, names, and the way back from components to weights."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.spaces import CROSS, FF, FF_IN, SELF, Site, find_sites, make_granularity
from cad_exp.utils.errors import UserError

TOY = [Site("a", "a", FF, (2, 6)), Site("b", "b", SELF, (3, 4), heads=2), Site("c", "c", CROSS, (3, 4), heads=2)]


@pytest.fixture(scope="module")
def sd14_sites():
    """SD1.4's UNet is the default of its class but for the size of the text states; meta tensors cost nothing."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    return find_sites(unet)


def test_sd14_counts(sd14_sites):
    counts = {name: make_granularity(name).on(sd14_sites).n for name in ("head", "neuron", "layer")}
    assert counts == {"head": 256, "neuron": 49920, "layer": 48}
    assert len([site for site in sd14_sites if site.kind == FF]) == 16
    assert make_granularity("weight", [FF]).on(sd14_sites).n == sum(s.size for s in sd14_sites if s.kind == FF)


def test_the_public_codes_weights_of_sd14():
    """CAD's public code: every 2-D weight whose name holds `ff`, 148.7 M of 859.5 M (arXiv 2412.02542, its code)."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    cut = make_granularity("weight", [FF_IN, FF])
    sites = cut.sites(find_sites(unet, inputs=True))
    public = {name.removesuffix(".weight") for name, w in unet.named_parameters() if "ff" in name and w.ndim == 2}
    assert {site.module for site in sites} == public and len(sites) == 32
    assert (
        round(cut.on(sites).n / 1e6, 1) == 148.7 and round(sum(w.numel() for w in unet.parameters()) / 1e6, 1) == 859.5
    )
    assert [site for site in find_sites(unet, inputs=True) if site.kind != FF_IN] == find_sites(unet)


def test_first_projections_are_asked_for_by_name_and_as_weights_only(tiny_model):
    both = find_sites(tiny_model.denoiser, inputs=True)
    assert make_granularity("weight").on(both).n == make_granularity("weight").on(find_sites(tiny_model.denoiser)).n
    cut = make_granularity("weight", [FF_IN])
    assert cut.on(both).table()["stop"].iloc[-1] == cut.on(both).n > 0
    for site in cut.sites(both):
        module = tiny_model.denoiser.get_submodule(site.module)
        assert isinstance(module, nn.Linear) and tuple(module.weight.shape) == site.shape
    for name in ("neuron", "head", "layer"):
        with pytest.raises(UserError, match="unknown kind"):
            make_granularity(name, [FF_IN])


def test_sd14_order_and_names(sd14_sites):
    assert (sd14_sites[0].block, sd14_sites[0].kind) == ("down_blocks.0.attentions.0", SELF)
    stages = [site.block.split(".")[0] for site in sd14_sites]
    assert stages == sorted(stages, key=["down_blocks", "mid_block", "up_blocks"].index)
    names = make_granularity("head").on(sd14_sites).table()["name"]
    assert "up_blocks.1.attentions.0 · cross-attention · head 3" in set(names) and names.is_unique


def test_several_transformer_blocks_are_told_apart():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            cross_attention_dim=32,
        )
    names = make_granularity("layer").on(find_sites(unet)).table()["name"]
    assert names.is_unique and "up_blocks.0.attentions.0.transformer_blocks.1 · feed-forward" in set(names)


def test_sites_are_the_projections(tiny_model):
    sites = find_sites(tiny_model.denoiser)
    assert len(sites) == 21 and {site.kind for site in sites} == {SELF, CROSS, FF}
    for site in sites:
        module = tiny_model.denoiser.get_submodule(site.module)
        assert isinstance(module, nn.Linear) and tuple(module.weight.shape) == site.shape
        assert site.heads == (0 if site.kind == FF else 4)
    with pytest.raises(UserError, match="not supported"):
        find_sites(nn.Linear(2, 2))


def test_reduce_by_hand():
    scores = {"a": torch.arange(12.0).view(2, 6), "b": torch.ones(3, 4), "c": torch.arange(12.0).view(3, 4)}
    assert make_granularity("neuron").on(TOY).join(scores).tolist() == [6, 8, 10, 12, 14, 16]
    assert make_granularity("head").on(TOY).join(scores).tolist() == [6, 6, 12 + 15, 18 + 21]
    assert make_granularity("layer").on(TOY).join(scores).tolist() == [66, 12, 66]
    assert make_granularity("weight", CROSS).on(TOY).join(scores).tolist() == list(range(12))
    assert make_granularity("neuron", [FF, SELF]).on(TOY).n == 10


@pytest.mark.parametrize("name", ["weight", "neuron", "head", "layer"])
def test_locate_and_back(name):
    space = make_granularity(name).on(TOY)
    chosen = torch.arange(space.n)[::2].flip(0)
    located = space.locate(chosen)
    assert torch.equal(space.components(Edit(located)), chosen.sort().values)
    scores = {site.module: torch.rand(site.shape) for site in TOY}
    for site in TOY:  # the located weights sum to the chosen scores
        mask = torch.zeros(site.shape)
        if site.module in located:
            if name == "weight":
                mask.view(-1)[located[site.module]] = 1
            else:
                mask[:, located[site.module]] = 1
        scores[site.module + "*"] = scores[site.module] * mask
    kept = sum(scores[site.module + "*"].sum() for site in TOY)
    torch.testing.assert_close(kept, space.join(scores)[chosen].sum())


@pytest.mark.parametrize("name", ["weight", "neuron", "head", "layer"])
def test_table(name):
    space = make_granularity(name).on(TOY)
    table = space.table()
    assert table["index"].tolist() == list(range(len(table))) and table["name"].is_unique
    assert len(table) == (3 if name == "weight" else space.n)
    if name == "weight":
        assert table[["start", "stop"]].values.tolist() == [[0, 12], [12, 24], [24, 36]]
    if name == "head":
        assert table[["start", "stop"]].values.tolist() == [[0, 2], [2, 4], [0, 2], [2, 4]]


def test_groups():
    weight, neuron = make_granularity("weight").on(TOY), make_granularity("neuron", [FF, SELF]).on(TOY)
    assert weight.groups("row").bincount().tolist() == [6, 6, 4, 4, 4, 4, 4, 4]
    assert weight.groups("layer").bincount().tolist() == [12, 12, 12]
    assert weight.groups("global").unique().tolist() == [0]
    assert neuron.groups("layer").tolist() == [0] * 6 + [1] * 4
    for name, scope in (("neuron", "row"), ("head", "row"), ("layer", "row"), ("layer", "layer")):
        with pytest.raises(UserError, match=f"granularity {name} has no scope '{scope}': use scope="):
            make_granularity(name).on(TOY).groups(scope)
    with pytest.raises(UserError, match="unknown scope 'glbal': did you mean 'global'"):
        weight.groups("glbal")


def test_unknown_names():
    with pytest.raises(UserError, match="unknown granularity 'nueron': did you mean 'neuron'"):
        make_granularity("nueron")
    with pytest.raises(UserError, match="unknown kind for granularity head 'feed-forward'"):
        make_granularity("head", [FF])
    with pytest.raises(UserError, match="at least one kind"):
        make_granularity("weight", [])
