"""What interactions say, by hand: an overlap, a backup, clusters that act as one."""

import numpy as np

from cad_exp.attribution.interactions.findings import clusters_of, pairs_of, told

NAMES = ["a", "b", "c", "d"]


def game(gates: np.ndarray) -> float:
    """J: a or b suffices (they do overlap each other's loss); c and d are worth something only together."""
    a, b, c, d = gates
    return float(max(a, b) + c * d)


def second_differences() -> tuple[np.ndarray, np.ndarray]:
    """Scores and interactions by ablations of the game above."""
    intact = game(np.ones(4))
    alone = np.array([intact - game(1 - np.eye(4)[i]) for i in range(4)])
    pairs = np.zeros((4, 4))
    for i in range(4):
        for j in range(4):
            if i != j:
                both = 1 - np.eye(4)[i] - np.eye(4)[j]
                pairs[i, j] = game(both) - game(1 - np.eye(4)[i]) - game(1 - np.eye(4)[j]) + intact
    return pairs, alone


def test_a_redundancy_backs_up_and_an_and_overlaps():
    """Of `a or b` neither alone is missed, but both are: -1. Of `c and d` the second loss costs nothing: +1."""
    pairs, alone = second_differences()
    assert alone.tolist() == [0, 0, 1, 1]
    table = pairs_of(pairs, alone, NAMES)
    strong = {(row.one_name, row.other_name): (row.interaction, row.kind) for row in table.head(2).itertuples()}
    assert strong == {("a", "b"): (-1, "back up"), ("c", "d"): (1, "overlap")}
    assert (table["interaction"].iloc[2:] == 0).all() and len(table) == 6


def test_components_whose_interactions_are_alike_are_one_cluster():
    rng = np.random.default_rng(0)
    profile = {0: rng.normal(size=8), 1: rng.normal(size=8)}
    group = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    pairs = np.array([[profile[a][j] * profile[b][i] for j, b in enumerate(group)] for i, a in enumerate(group)])
    rows = np.stack([profile[each] for each in group])
    symmetric = rows @ rows.T + 0.01 * (pairs + pairs.T)
    found = clusters_of(symmetric)
    assert found[0] == 0 and len(set(found.tolist())) == 2
    assert [found[i] == found[0] for i in range(8)] == (group == 0).tolist()


def test_without_interactions_everybody_is_alone():
    assert clusters_of(np.zeros((3, 3))).tolist() == [0, 1, 2]
    assert clusters_of(np.zeros((1, 1))).tolist() == [0]


def test_sentences_say_what_prevails():
    pairs, alone = second_differences()
    said = told(pairs_of(pairs, alone, NAMES), np.array([0, 0, 1, 2]), NAMES, 1)
    assert said == "Of all interactions 50% back up, the rest overlap. Act as one: a and 1 more."
    none = pairs_of(np.zeros((2, 2)), np.zeros(2), ["a", "b"])
    assert told(none, np.array([0, 1]), ["a", "b"]) == "They do not interact."
