"""What images are made of: the model as it is, the edited one, and one with a random edit as large."""

VARIANTS = ("unedited", "edited", "random")

# What probes read from: the network's layers, and what these must beat.
NETWORK, LATENT, UNTRAINED = "network", "noisy latent", "random weights"
FUSED = "fused"  # the best layers and timesteps together
ENCODER, PIXELS, COMPONENTS = "image encoder", "pixels", "principal components of pixels"
SOURCES = (NETWORK, FUSED, LATENT, UNTRAINED, ENCODER, PIXELS, COMPONENTS)
INPUTS = (LATENT, PIXELS)  # what no network has worked on: the better of two probes reads them

# What stands beside an analysis: the same measure where nothing is to be found, and its rivals.
CONTROL = "control"
KMEANS, GUIDED, UNGUIDED = "k-means", "guided", "unguided"
RANDOM_DIRECTION = "random direction"  # of guidance, as long as the true one
ERROR = "denoising error"  # how well the noise is predicted
WORD, OTHER_WORD = "word maps", "another word"
CENTRE, PLACE = "centre of the image", "place in the image"  # what any image tells of where its object is
ANALYSED = (CONTROL, KMEANS, GUIDED, UNGUIDED, RANDOM_DIRECTION, ERROR, WORD, OTHER_WORD, CENTRE, PLACE)

# Dictionaries of sparse features: the trained one, and what it must beat.
AUTOENCODER, FROZEN, RANDOM = "autoencoder", "frozen decoder", "random dictionary"
PRINCIPAL, CHANNELS = "principal components", "raw channels"
DICTIONARIES = (AUTOENCODER, FROZEN, RANDOM, PRINCIPAL, CHANNELS)
