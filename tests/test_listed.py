"""A single value where a list is meant is a list of one, for every list of every config; anything else is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cad_exp.config import listed
from cad_exp.config.options import conf_folder
from cad_exp.config.resolve import settle
from cad_exp.reporting.tables.study import _ITEMS, _LISTS
from cad_exp.utils.errors import UserError

from .test_configs import composed

NOT_RUNS = ("defaults", "hydra", "study", "space")  # Hydra's own; the table's and the search's, which read their own


def lists(value: Any, key: str = "") -> list[str]:
    """Dotted keys of all lists in a YAML file's content."""
    if isinstance(value, list):
        return [key]
    if not isinstance(value, dict):
        return []
    return [found for name, item in value.items() for found in lists(item, f"{key}.{name}".lstrip("."))]


def of_every_config() -> set[str]:
    found = set()
    for file in sorted(conf_folder().rglob("*.yaml")):
        group = file.relative_to(conf_folder()).parts[0]
        text = file.read_text(encoding="utf-8")
        whole = "@package _global_" in text or group in ("config.yaml", "search.yaml", "experiment")
        found |= set(lists(yaml.safe_load(text), "" if whole else group))
    return {key for key in found if key.split(".")[0] not in NOT_RUNS and key.split(".")[-1] != "defaults"}


def put(config: dict, key: str, value: Any) -> dict:
    """A config that holds one value, by its dotted key."""
    *groups, last = key.split(".")
    place = config
    for group in groups:
        place = place.setdefault(group, {})
    place[last] = value
    return config


def got(config: dict, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def test_every_list_of_every_config_is_known():
    assert len(list(Path(conf_folder(), "experiment").glob("*.yaml"))) > 10
    assert of_every_config() <= set(listed.LISTS)


def test_lists_of_studies_take_a_single_value():
    files = Path(conf_folder(), "experiment").glob("*.yaml")
    keys = [key for file in files for key in lists(yaml.safe_load(file.read_text(encoding="utf-8")))]
    found = {key.split(".")[1] for key in keys if key.startswith("study.")}
    assert found <= {*_LISTS, *_ITEMS}


@pytest.mark.parametrize("key", sorted(listed.LISTS))
def test_a_single_value_is_a_list_of_one(key: str):
    one = "edit=uce" if listed.LISTS[key] == listed.TEXTS else 25
    for given in (one, [one]):
        config = put({}, key, given)
        listed.settle(config)
        assert got(config, key) == [one]


@pytest.mark.parametrize("key", sorted(listed.LISTS))
def test_what_is_no_list_is_refused_with_its_key(key: str):
    texts = listed.LISTS[key] == listed.TEXTS
    for wrong in ([["a"]], [{"a": 1}], [None], True, [float("nan")], *(() if texts else ("0.1", ["x"]))):
        with pytest.raises(UserError, match=rf"^{key} is a list of .*: it cannot hold"):
            listed.settle(put({}, key, wrong))
    if key != "model.erased":  # which says itself what it takes
        with pytest.raises(UserError, match=rf"^{key} is a list of .*mapping"):
            listed.settle(put({}, key, {"a": "b"}))


def test_null_is_an_empty_list_unless_it_says_something_else():
    for key in listed.LISTS:
        config = put({}, key, None)
        listed.settle(config)
        assert got(config, key) == (None if key in listed.OPEN else [])


def test_numbers_are_texts_where_texts_are_meant():
    assert listed.as_list([7, "x", 0.5], listed.TEXTS, "k") == ["7", "x", "0.5"]
    with pytest.raises(UserError, match="k is a list of whole numbers: it cannot hold '1.5'"):
        listed.as_list(1.5, listed.WHOLE, "k")


def test_a_run_reads_them_so(tmp_path: Path):
    config = composed(
        "concept=church",
        "concept.evaluation_prompts=a photo of a church",
        "evaluation.metrics=erasure",
        "evaluation.fidelity.rates=0.1",
        "granularity.kinds=cross-attention",
        "tracking.tags=thesis",
        "model.erased='edit=uce'",
    )
    before = config["evaluation"]["fidelity"]
    settled = settle(config)
    assert settled["concept"]["evaluation_prompts"] == ["a photo of a church"]
    assert settled["evaluation"]["metrics"] == ["erasure"] and settled["tracking"]["tags"] == ["thesis"]
    assert settled["evaluation"]["fidelity"]["rates"] == [0.1] and before["rates"] == 0.1  # the caller's stays
    assert settled["granularity"]["kinds"] == ["cross-attention"]
    assert settled["model"]["erased"]["edit"]["name"] == "uce"
    assert settle(settled) == settled
