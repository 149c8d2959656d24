"""Sparse autoencoders: activations as sums of a few latents, each a direction of a large dictionary.

1. `stream` gives shuffled tokens, activations at single positions, from shards that may be larger than memory.
2. `autoencoder` turns a token into k latents and back: z = select(ReLU(W_enc (x - b_dec) + b_enc)), W_dec z + b_dec.
3. `architectures` says which latents are selected, and which reconstructions count in training.
4. `gradients` works out the loss and its gradient by hand, on the selected latents alone.
5. `optimisers` and `training` move many autoencoders along one stream.
6. `controls` are the dictionaries that a trained one must beat: they are measured by the same code.
"""
