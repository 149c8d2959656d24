"""Attention to text: it is the one that diffusers computes, by hand and through a module's output."""

import pytest
import torch

from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.cross_attention import (
    Attended,
    attend,
    attentions_to_text,
    prompt_tokens,
    word_tokens,
)
from cad_exp.utils.errors import UserError
from tests.tiny import BUILDERS, build

CAN = sorted(set(BUILDERS) - {name for name in BUILDERS if name.startswith("flux")})


def load(family: str, once) -> DiffusionModel:
    return DiffusionModel.load(once(family, lambda folder: build(family, folder)), device="cpu", steps=2)


def test_probabilities_by_hand():
    logits = torch.tensor([[[[0.0, 2.0]]]])
    assert torch.allclose(Attended(logits).probabilities, logits.softmax(-1))
    # beside a text of one token lies one position of the image, three times as strong
    joint = Attended(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0).log())
    assert joint.probabilities.item() == pytest.approx(0.25)


@pytest.mark.parametrize("family", CAN)
def test_with_these_probabilities_a_module_returns_what_it_returned(family: str, once):
    """The module's own output, made once more from its values and our probabilities."""
    model = load(family, once)
    places, seen = attentions_to_text(model), dict[str, tuple]()
    hooks = [
        model.denoiser.get_submodule(place.name).register_forward_hook(
            lambda _, args, kwargs, out, name=place.name: seen.__setitem__(name, (args, kwargs, out)), with_kwargs=True
        )
        for place in places
    ]
    x, t, condition = model.noise_like([0, 1]), torch.tensor([5, 5]), model.encode(["ab c", "d"])
    prediction, found = attend(model, x, t, condition, lambda each: each)
    for hook in hooks:
        hook.remove()
    assert torch.equal(prediction, model.predict(x, t, condition))
    for place, each in zip(places, found, strict=True):
        module, (args, kwargs, out) = model.denoiser.get_submodule(place.name), seen[place.name]
        hidden = args[0] if args else kwargs["hidden_states"]
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]

        def heads(values, module=module):
            return values.unflatten(-1, (module.heads, -1)).transpose(1, 2).float()

        if place.own_keys is None:
            made = each.probabilities @ heads(module.to_v(text))
            assert torch.allclose(each.probabilities.sum(-1), torch.ones(()), atol=1e-5)
        else:  # what the image gives itself, from its own logits
            queries, keys = module.to_q(hidden), module.to_k(hidden)
            queries, keys = heads(queries), heads(keys)
            queries = queries if module.norm_q is None else module.norm_q(queries)
            keys = keys if module.norm_k is None else module.norm_k(keys)
            own = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
            total = torch.logaddexp(each.logits.logsumexp(-1, keepdim=True), own.logsumexp(-1, keepdim=True))
            made = each.probabilities @ heads(module.add_v_proj(text)) + (own - total).exp() @ heads(
                module.to_v(hidden)
            )
        made = module.to_out[0](made.transpose(1, 2).flatten(2).to(x.dtype))
        given = out[0] if isinstance(out, tuple) else out
        assert torch.allclose(made, given, atol=1e-5), place.name


def test_flux_is_answered(once):
    with pytest.raises(UserError, match="take a model with a UNet"):
        attentions_to_text(load("flux_schnell", once))


def test_reading_changes_nothing(tiny_model):
    x, t, condition = tiny_model.noise_like([0]), torch.tensor([9]), tiny_model.encode(["ab"])
    before = tiny_model.predict(x, t, condition)
    attend(tiny_model, x, t, condition, lambda each: each.logits)
    assert torch.equal(before, tiny_model.predict(x, t, condition))
    assert not any(module._forward_hooks for module in tiny_model.denoiser.modules())


def test_the_tokens_of_a_word(tiny_model):
    """The tiny tokenizer has a token for each letter, and one for each that ends a word."""
    tokenizer = tiny_model.pipe.tokenizer
    assert word_tokens(tokenizer, "ab cd e", "cd") == [3, 4]  # after the start, a and b
    assert word_tokens(tokenizer, "ab cd e", "cd e") == [3, 4, 5]
    assert prompt_tokens(tokenizer, "ab c") == [1, 2, 3]
    with pytest.raises(UserError, match="no word 'xy'"):
        word_tokens(tokenizer, "ab cd", "xy")


@pytest.mark.parametrize(("word", "tokens"), [("church", [5]), ("gas pump", [5, 6]), ("English springer", [5, 6])])
def test_the_tokens_of_a_word_of_the_embedded_world(word: str, tokens: list[int]):
    from cad_exp.mini.clip import text_tower

    tokenizer, _ = text_tower()
    assert word_tokens(tokenizer, f"a photo of a {word}", word) == tokens
