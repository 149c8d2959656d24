"""What the latents of a sparse dictionary say of labels, each measure with its chance level.

Every dictionary is measured in the same form: a trained autoencoder, and the rivals that it must beat (a random
dictionary with TopK, a frozen decoder, raw channels, principal components). `codes` is a scipy.sparse.csr_matrix
(images, latents), not negative: how strongly each latent acts in each image, pooled over positions. A latent that never
acts is dead and counts nowhere; the number of dead ones is told. `classes` is an int array (images,), below 0 for none.
"""
