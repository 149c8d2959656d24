"""The field's libraries on the same weights: the same forward pass, and our files read by SAELens. Each is optional."""

import pytest
import torch

from benchmarks.sae_rivals import DictionaryLearning, Sparsify, missing
from cad_exp.representations.sae.autoencoder import Autoencoder
from cad_exp.representations.sae.files import load, save
from cad_exp.representations.sae.gradients import gradients
from cad_exp.representations.sae.selection import Threshold, TopK
from tests.representations.test_sae import random_autoencoder

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(4))


def reconstructed(sae: Autoencoder) -> torch.Tensor:
    return sae.decode(sae.encode(X))


def without(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(missing(library)), reason=f"without {library}")


@without("sparsify")
def test_sparsify_computes_the_same():
    """Forward pass, loss and gradient on the same weights."""
    sae = random_autoencoder(TopK(4))
    coder = Sparsify.coder(6, 20, 4, seed=0)
    coder.encoder.weight.data, coder.encoder.bias.data = sae.W_enc.clone(), sae.b_enc.clone()
    coder.W_dec.data, coder.b_dec.data = sae.W_dec.clone(), sae.b_dec.clone()
    out = coder(X)
    torch.testing.assert_close(out.sae_out, reconstructed(sae))
    out.fvu.backward()
    outcome = gradients(sae, X, [20])
    assert outcome.loss == pytest.approx(out.fvu.item(), rel=1e-5)
    theirs = {"W_enc": coder.encoder.weight, "b_enc": coder.encoder.bias, "W_dec": coder.W_dec, "b_dec": coder.b_dec}
    for name, parameter in theirs.items():
        torch.testing.assert_close(outcome.gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
    told = Sparsify.told(coder, 4)
    assert all(torch.equal(told.tensors[name], sae.tensors[name]) for name in sae.tensors)


@without("dictionary_learning")
def test_dictionary_learning_computes_the_same():
    sae = random_autoencoder(TopK(4))
    ae = DictionaryLearning.trainer(steps=10, d=6, width=20, k=4, seed=0, lr=1e-3).ae
    ae.encoder.weight.data, ae.encoder.bias.data = sae.W_enc.clone(), sae.b_enc.clone()
    ae.decoder.weight.data, ae.b_dec.data = sae.W_dec.T.clone(), sae.b_dec.clone()
    torch.testing.assert_close(ae(X), reconstructed(sae))
    told = DictionaryLearning.told(ae, 4)
    assert all(torch.equal(told.tensors[name], sae.tensors[name]) for name in sae.tensors)


@pytest.mark.parametrize("selects", [TopK(4), Threshold(0.0), Threshold(0.7)])
def test_saelens_reads_our_files(tmp_path, selects):
    """As topk and as jumprelu: the same latents, the same reconstruction, and the facts under `metadata`."""
    sae_lens = pytest.importorskip("sae_lens")
    sae = random_autoencoder(selects)
    save(tmp_path, sae, {"site": "mid_block"})
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    torch.testing.assert_close(theirs.encode(X), torch.tensor(sae.encode(X).matrix(20).toarray()))
    torch.testing.assert_close(theirs(X), reconstructed(sae))
    assert theirs.cfg.metadata.site == "mid_block"


@pytest.mark.parametrize("selects", [TopK(4), Threshold(0.7)])
def test_we_read_saelens_files(tmp_path, selects):
    """What SAELens writes again is what it read; with `rescale_acts_by_decoder_norm` too."""
    sae_lens = pytest.importorskip("sae_lens")
    sae = random_autoencoder(selects)
    save(tmp_path / "ours", sae, {})
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    if isinstance(selects, TopK):
        theirs.cfg.rescale_acts_by_decoder_norm = True
    theirs.save_model(tmp_path / "theirs")
    found, _ = load(tmp_path / "theirs")
    torch.testing.assert_close(reconstructed(found), theirs(X).detach())
    assert found.selects == selects or isinstance(selects, Threshold)
