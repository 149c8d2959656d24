"""A single value where a list is meant is a list of one, for every list of every config; anything else is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticCustomError

from cad_exp.config import listed
from cad_exp.config.options import conf_folder
from cad_exp.config.reference import settings
from cad_exp.config.resolve import resolve
from cad_exp.config.schema.prompts import Template
from cad_exp.config.schema.sparse import Width
from cad_exp.config.schema.types import Choice, Number, Several, Text, Whole
from cad_exp.reporting.tables.study import _ITEMS, _LISTS
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed

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


# The lists among all settings; of several classes with the same key, one.
LISTS = {each.key: each for each in settings() if isinstance(each.kind, Several) or each.key == "model.erased"}
SAMPLES = {Width: "auto", Text: "edit=uce", Whole: 25, Number: 0.5, Template: "a photo of a {}"}


def one(key: str) -> Any:
    """A value that may stand in the list of this key."""
    of = getattr(LISTS[key].kind, "of", Text())
    return of.names[0] if isinstance(of, Choice) else SAMPLES[type(of)]


def test_every_list_of_every_config_is_known():
    assert len(list(Path(conf_folder(), "experiment").glob("*.yaml"))) > 10
    assert of_every_config() <= set(LISTS) and len(LISTS) > 30


def test_lists_of_studies_take_a_single_value():
    files = Path(conf_folder(), "experiment").glob("*.yaml")
    keys = [key for file in files for key in lists(yaml.safe_load(file.read_text(encoding="utf-8")))]
    found = {key.split(".")[1] for key in keys if key.startswith("study.")}
    assert found <= {*_LISTS, *_ITEMS}


@pytest.mark.parametrize("key", sorted(LISTS))
def test_a_single_value_is_a_list_of_one(key: str):
    for given in (one(key), [one(key)]):
        assert LISTS[key].kind.check(given) == (one(key),)


@pytest.mark.parametrize("key", sorted(LISTS))
def test_what_is_no_list_is_refused(key: str):
    texts = isinstance(one(key), str)
    for wrong in ([["a"]], [{"a": 1}], [None], True, [float("nan")], *(() if texts else ("0.1", ["x"]))):
        with pytest.raises(PydanticCustomError, match=r"^\{key\} is a list of .*: it cannot hold"):
            LISTS[key].kind.check(wrong)
    with pytest.raises(PydanticCustomError, match=r"^\{key\} (is a list of .*mapping|must be a list of overrides)"):
        LISTS[key].kind.check({"a": "b"})


MORE = {"analysis.timesteps", "analysis.leave_out", "edit.retain", "concept.validation_prompts"}


def test_null_is_an_empty_list_unless_it_says_something_else():
    told = {key for key, each in LISTS.items() if each.nullable}
    places = {"granularity.kinds", "granularity.hookpoints"}
    assert told == {*places, "model.erased", "prompts.labels", "retention_prompts.labels", "estimator.others"} | MORE
    for key in set(LISTS) - told:
        kind = LISTS[key].kind
        if kind.least == 0:
            assert kind.check(None) == ()


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
    resolved = resolve(config)
    assert resolved["concept"]["evaluation_prompts"] == ["a photo of a church"]
    assert resolved["evaluation"]["metrics"] == ["erasure"] and resolved["tracking"]["tags"] == ["thesis"]
    assert resolved["evaluation"]["fidelity"]["rates"] == [0.1] and before["rates"] == 0.1  # the caller's stays
    assert resolved["granularity"]["kinds"] == ["cross-attention"]
    assert resolved["model"]["erased"]["edit"]["name"] == "uce"
    assert resolve(resolved) is resolved
