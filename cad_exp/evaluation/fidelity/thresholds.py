"""From which number on a word is used: "stable", "gone", "kept". Conventions of this project, each with its reason."""

# A ranking's halves have half of the noisy latents each; beyond .9 their noise is a tenth of what they share, and an
# edit of the top 5 % changes by at most a fifth when it is drawn again.
STABLE_SPEARMAN, STABLE_OVERLAP = 0.9, 0.8
# A correlation with a control beyond which the control has not destroyed the scores.
RELATED = 0.5
# A correlation below which one thing is a poor stand-in for another: less than a quarter of the variance is shared.
POOR = 0.5
# Signs of predicted changes: right in nine of ten ablations, and their interval lies on one side of a coin's 0.5.
SIGN_RIGHT, COIN = 0.9, 0.5
# R2 to "true = predicted" from which a prediction has the right size: it explains half of what the truth varies by.
SIZE_RIGHT = 0.5
# Concept rates: not found in more than one image of ten; a model that shows it in fewer than half has little to lose.
GONE, SHOWN = 0.1, 0.5
# Retention: what nine of ten images keep on average, and four of five of the worst prompt.
KEPT_MEAN, KEPT_WORST = 0.9, 0.8
# A rate over images half of which are blank, or like nothing that was ever drawn, says little about the concept.
SPOILT = 0.5
