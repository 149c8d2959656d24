"""No prompt that may ask for a child is drawn with a concept of nudity, however it is written, wherever it stands."""

import copy
import random
import re
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cad_exp.config.resolve import resolve
from cad_exp.config.safety import minors
from cad_exp.data.prompts import load, plan
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed

CHILDREN = r"""
young  girl|young_girl|young\ngirl|Young-Girl|youngGirl|young\u200bgirl|young, beautiful one|young nude|very young woman
child|CHILD|children|childs|child's|child’s|c h i l d|c.h.i.l.d|ch\u200bild|ch\u00adild|ch-\nild|ch ild|chiiiild|chilld
chlid|ch*ld|k*d|ch1ld|k1d|t33n|9irl|lo1i|ｃｈｉｌｄ|сhild|chíld|c̶h̶i̶l̶d̶|ⓒⓗⓘⓛⓓ|🅲🅷🅸🅻🅳|𝓬𝓱𝓲𝓵𝓭|ᴄʜɪʟᴅ|ch&#105;ld|nakedchild|NakedKid
👧|👶🏽|minor|teens|teenager|schoolgirls|school girl|toddlers|preteen|pre-teen|kid|KIDS|boyz|under-age|under age|babies
high school|little one|barely legal|niño|ребёнок|少女|infant|lolita
15 year old|15-year-old|15_year_old|15yo|15 y.o.|15 y/o|15yrs old|15-yr-old|15year-old|15yearold|15\u00a0years\u3000old
1\u200b5 years old|１５ year old|⑮ years old|١٥ years old|015 years old|15 years of age|6 months old|12-14 years old
fifteen years old|Fif teen years old|fifteen-year-old|fifteenyearold|fifteenyo|twel\u200bve years old|eleven y.o.
aged 12|aGeD 12|aged fifteen|age: 9|age=15|age_15|under 18|under eighteen|<18|< 18|almost 18|turning 18
a woman, 15|a woman of seventeen|she is 15|sweet sixteen|15th birthday|her fifteenth birthday|15f|14/f
17 years|XII years old|17¾ years old|between 14 and 16|naked, 17|17 and naked|sixteen|c#ild|t€€n|ĸid|adolescence
"""
ADULTS = """
a photo of a naked person|a young woman|two young men|18 year old|18yo|18-year-old|eighteen years old|18+|over 18
25-year-old|twenty-five years old|twentyone yo|twenty one year old|nineteen years old|ninety years old|100 years old
aged 30|kidney|canteen|cowboy|boycott|boyfriend|girlfriend|a portrait, 35mm, f/1.8, 8k|an oil painting, 1920
a golf ball
trending on artstation, 4k, octane render|a photo in the style of Van Gogh|four women and two men
3 naked women|20 years ago|a man and a dog|a portrait 707|in 1455
"""
CHURCH = {"name": "church", "kind": "object", "label": "church", "prompt": "church"}
NUDITY = {"name": "nudity", "kind": "nudity", "label": "naked", "prompt": "naked person"}
HEAD = "prompt,evaluation_seed\n"


def _unescaped(text: str) -> str:
    return re.sub(r"\\(n|u[0-9a-f]{4})", lambda match: "\n" if match[1] == "n" else chr(int(match[1][1:], 16)), text)


BAD = [_unescaped(item) for line in CHILDREN.split("\n") for item in line.split("|") if item]
GOOD = [item for line in ADULTS.split("\n") for item in line.split("|") if item]


@cache
def _composed(*overrides: str) -> dict:
    return composed(*overrides)


def config(*overrides: str, **values: object) -> dict:
    """A composed config with further values by dotted key, group__key."""
    found = copy.deepcopy(_composed(*overrides))
    for key, value in values.items():
        group, _, name = key.partition("__")
        found[group][name] = value
    return found


@pytest.mark.parametrize("prompt", BAD)
def test_what_may_ask_for_a_child_is_found(prompt: str):
    assert minors.find(prompt) and minors.find(f"a naked {prompt}, on a beach")


@pytest.mark.parametrize("prompt", GOOD)
def test_adults_and_things_pass(prompt: str):
    assert minors.find(prompt) is None


@pytest.mark.parametrize("age", [0, 1, 9, 12, 17, 18, 19, 25, 64, 99])
@pytest.mark.parametrize(
    "form", ["{} year old", "a {}-year-old woman", "{}yo", "aged {}", "age: {}", "{} years of age"]
)
def test_eighteen_is_the_border(age: int, form: str):
    assert bool(minors.find(form.format(age))) == (age < 18)


SPACES = " \t\n\r\u00a0\u2003\u3000_-.,;:/'\"()\u200b\u200d\u2060\ufeff\u00ad"
MARKS = ["", "", "\u0301", "\u0336", "\u20dd"]


def disguised(text: str, chance: random.Random) -> str:
    """The text with other cases, widths, accents, and anything for a space, which may stand within words too."""
    written = ""
    for char in text:
        char = char.upper() if chance.random() < 0.5 else char
        char = chr(ord(char) + 0xFEE0) if chance.random() < 0.2 and char.isalnum() else char  # full width
        written += "".join(chance.choices(SPACES, k=chance.randint(1, 3))) if char == " " else char
        written += chance.choice(MARKS) if char.isalpha() else ""
        written += chance.choice(SPACES) if chance.random() < 0.2 else ""
    return written


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        ["child", "young girl", "schoolgirl", "toddler", "fifteen years old", "12 years old", "young nude"]
    ),
    st.integers(0, 10**6),
)
def test_no_disguise_hides_a_word(word: str, seed: int):
    written = disguised(word, random.Random(seed))
    assert minors.find(f"a photo, {written}. Naked"), written


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["a photo of a golf ball", "naked person", "a garbage truck", "a young woman, thirty years old"]),
    st.integers(0, 10**6),
)
def test_case_and_accents_make_no_child_of_an_adult(prompt: str, seed: int):
    chance = random.Random(seed)
    cased = chance.choice([str.upper, str.lower, str.title, str.swapcase])(prompt)
    written = "".join(char + (chance.choice(MARKS) if char != " " else "") for char in cased)
    assert minors.find(written) is None, written


# ---------------------------------------------------------------------------------------------- where prompts come from


UCE, CONTRAST = ["edit=uce"], ["objective=contrast"]
HOLDING = {
    "objective__retain": CONTRAST,
    "edit__preserve": UCE,
    "edit__prompt": UCE,
}  # options that have prompts of their own


@pytest.mark.parametrize(
    "key, value",
    [
        ("concept__prompt", "naked child"),
        ("concept__base_prompt", "a photo of a young_girl"),
        ("concept__evaluation_prompts", ["a naked person", "a naked 15 y.o."]),
        ("concept__evaluation_prompts", "a naked minor"),
        ("concept__label", "teen"),
        ("objective__retain", ["a photo of a schoolgirl"]),
        ("edit__preserve", ["a baby"]),
        ("edit__prompt", "a kid"),
        ("edit__instead", "a photo of a kid"),
    ],
)
def test_own_prompts_are_refused_with_their_key(key: str, value: object):
    with pytest.raises(UserError, match=rf"{key.replace('__', '.')}='.*may ask for a child"):
        resolve(config("concept=nudity", *HOLDING.get(key, []), **{key: value}))


@pytest.mark.parametrize("kind", ["custom", "object", "style"])
def test_a_concept_of_another_kind_that_asks_for_nudity_is_one_of_nudity(kind: str):
    given = config("concept=custom", "concept.prompt=nude woman", concept__kind=kind)
    assert resolve(copy.deepcopy(given))
    given["concept"]["evaluation_prompts"] = ["a child"]
    with pytest.raises(UserError, match="may ask for a child"):
        resolve(given)
    with pytest.raises(UserError, match=r"concept\.prompt='a nude child'"):
        resolve(config("concept=custom", "concept.prompt=a nude child"))
    assert resolve(config("concept=custom", "concept.prompt=a child in a red coat"))


def test_words_of_templates_are_prompts_too():
    for key, value in (("persons", ["kid"]), ("subjects", "toddler"), ("templates", ["a young {} one"])):
        with pytest.raises(UserError, match=rf"prompts\.{key}="):
            resolve(config("concept=nudity", "prompts=templates", **{f"prompts__{key}": value}))
    rows = _composed("concept=nudity", "prompts=templates")["prompts"] | {"persons": ["person"], "groups": ["persons"]}
    found = load(rows | {"templates": ["a {}", "a ch{}", "a {} of 15"]}, NUDITY)
    assert [row.prompt for row in found if "naked" in row.prompt] == ["a naked person", "a chnaked person"]


def test_the_shipped_prompts_pass():
    for overrides in ([], ["edit=uce"], ["evaluation=fidelity"], ["objective=contrast"], ["prompts=templates"]):
        assert plan(resolve(config("concept=nudity", *overrides))) is not None


ROWS = HEAD + 'a naked person,1\nyoung  girl,2\na young_girl,3\n"young\ngirl",4\na 15 year old,5\na boat,6\n'


@pytest.mark.parametrize("group, name", [("prompts", "ring_a_bell"), ("retention_prompts", "coco30k")])
@pytest.mark.parametrize("without", [None, [], "child", ["child"], "x", ["boat"]])
def test_nothing_switches_the_filter_off(tmp_path: Path, group: str, name: str, without: object, capsys):
    (tmp_path / "set.csv").write_text(ROWS)
    chosen = _composed("concept=nudity", f"{group}={name}")[group]
    columns = chosen["columns"] | {"id": None, "seed": "evaluation_seed"}
    chosen = chosen | {"path": str(tmp_path / "set.csv"), "columns": columns, "without": without}
    kept = ["a naked person"] if without == ["boat"] else ["a naked person", "a boat"]
    assert [row.prompt for row in load(chosen, NUDITY, group)] == kept
    assert f"{len(kept)} of 6 rows; left out: 4 that may ask for a child" in capsys.readouterr().out
    chosen["kind"] = "caption"
    assert len(load(chosen, NUDITY, group)) == len(kept)


def test_captions_of_children_stay_for_other_concepts_but_not_undressed(tmp_path: Path):
    (tmp_path / "set.csv").write_text(HEAD + "a child on a swing,1\na naked child,2\na naked man,3\n")
    chosen = _composed("concept=church", "retention_prompts=coco30k")["retention_prompts"]
    chosen = chosen | {"path": str(tmp_path / "set.csv"), "columns": chosen["columns"] | {"id": None}}
    assert [row.prompt for row in load(chosen, CHURCH, "retention_prompts")] == ["a child on a swing", "a naked man"]


def test_ones_own_words_are_found_however_they_are_written(tmp_path: Path):
    (tmp_path / "set.csv").write_text(
        HEAD + "an Old_Man,1\nan old  man,2\nold woman,3\nol\u00e9 man,4\n", encoding="utf-8"
    )
    chosen = _composed("concept=church", "retention_prompts=coco30k")["retention_prompts"]
    chosen = chosen | {"path": str(tmp_path / "set.csv"), "columns": chosen["columns"] | {"id": None}}
    assert [row.seed for row in load(chosen | {"without": "old man"}, CHURCH)] == [3, 4]
    with pytest.raises(UserError, match="which has no letter or digit"):
        load(chosen | {"without": ["old", "!"]}, CHURCH)


@pytest.mark.parametrize(
    "unit", ["a", "7", "a ", "A", "a*", "\u0430", " ", "aB", "twenty", "1 ", "f\u0301", "young ", "woman "]
)
def test_long_prompts_take_no_time(unit: str):
    started = time.process_time()
    minors.find(unit * (100_000 // len(unit)))
    assert time.process_time() - started < 5


def test_texts_of_a_class_of_ones_own_are_prompts_too():
    """Settings that no type knows are read as well."""
    with pytest.raises(UserError, match=r"edit\.words='a kid' may ask for a child"):
        resolve(config("concept=nudity", edit__name="mine", edit__words="a kid"))
