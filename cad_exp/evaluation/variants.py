"""What images are made of: the model as it is, the edited one, and one with a random edit as large."""

VARIANTS = ("unedited", "edited", "random")
