"""Prompts that must never be drawn: those that may ask for a child where images of nudity are made.

The filter would rather leave out too much: "a kid goat", "childhood home" and "a young couple" go too. It knows English
and the commonest words of a few other languages. Adults pass: "a young woman", "18 years old", "boyfriend".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from cad_exp.config.safety import ages
from cad_exp.config.safety.reading import Vocabulary, readings

CHILDREN = Vocabulary(
    # Where two words count only together, they stand here as one: spaces do not matter.
    "adolescent ageofconsent baby bambina bambino barelylegal barelyadult boy brat child children chld csam "
    "daughter elementaryschool enfant extremelyyoung fetus fillette girl girlie girly grader gradeschool "
    "granddaughter grandson grl grrl gurl highschool infant infantile jailbait jeunefille juniorhigh juvenile kid "
    "kiddie kiddo kiddy kindergarten lad lass lassie littleangel littlebrother littlelady littleman littleone "
    "littleperson littleprince littleprincess littlesister loli lolicon lolita madchen middleschool minor moppet "
    "muchacha muchacho neonate nephew newborn niece nina nino nymphet orphan paedo pedo prepubertal prepubescent "
    "preschool preteen primaryschool puberty pubescent ragazzina ragazzino reallyyoung rugrat schoolage "
    "schoolaged schooler schooluniform secondaryschool shota shotacon smallone son soyoung stepdaughter stepson "
    "superyoung teen teenage teenaged teenager teenie teeny toddler tooyoung tot tween tweenager tyke unborn "
    "underage underaged veryyoung weeone youngest youngling youngster youth youthful "
    "adolescence babyface babyfaced teenybopper thirteen fourteen fifteen sixteen seventeen",
    stems="child toddler schoolgirl schoolboy preteen underage lolita pedophil kindergart teenag prepubescent girl",
    beside="a the my an hot sexy cute naked nude bare topless tiny little small young real pretty nsfw porn sex xxx "
    "teen girl boy kid baby school erotic slim thin innocent fresh petite body model sweet",
    but="girlfriend girlfriends showgirl showgirls cowgirl cowgirls",
    across=True,
)
YOUNG = Vocabulary("young younger youngish")
ADULTS = Vocabulary("woman women man men lady ladies gentleman gentlemen adult")
SCRIPTS = (  # in alphabets that no word above is written in
    *("孩", "儿童", "兒童", "幼女", "幼儿", "少女", "少年", "萝莉", "正太", "女童", "男童", "未成年", "婴儿", "小学生"),
    *("子供", "子ども", "こども", "ロリ", "ショタ", "中学生", "高校生", "女児", "赤ちゃん"),
    *("아이", "소녀", "소년", "어린"),
    *("ребен", "ребён", "девочк", "девушк", "мальчик", "детск", "дети", "детей", "подрост", "школьни", "малыш"),
    *("طفل", "فتاة", "बच्च", "लड़की", "ילד", "παιδι", "κοριτσ"),
)
NUDITY = Vocabulary(  # whatever the run is about
    "naked nude nudist unclothed undressed undressing topless bottomless nsfw porn porno xxx hentai erotic erotica "
    "erotism sex sexual sexually genitalia vagina vulva penis phallus pussy orgasm orgy masturbation bdsm striptease "
    "noclothes noclothing withoutclothes withoutclothing wearingnothing barebreasted unclad inthebuff skinnydipping "
    "birthdaysuit nackt desnuda desnudo nuda",
    stems="naked nudity nudes porn genital topless unclothed erotic hentai masturbat",
    beside="a the my young cute hot little teen girl boy kid child baby",
)
SUGGESTIVE = Vocabulary(  # in a concept of its own
    "sexy seductive lewd breast boob tit nipple areola buttock anus fetish stripper bareskin barechested shirtless "
    "nopants lingerie undress"
)


def find(text: str) -> str | None:
    """Return what in a prompt may ask for a child, as it is read ("child", "15yearsold"); None if nothing does."""
    return CHILDREN.find(text) or _young(text) or ages.find(text) or _script(text)


def asks_for_nudity(text: str) -> bool:
    """Return whether a prompt says that it wants naked people."""
    return NUDITY.find(text) is not None


def suggests_nudity(text: str) -> bool:
    """Return whether a prompt may be for naked people: enough to take a concept for one of nudity."""
    return asks_for_nudity(text) or SUGGESTIVE.find(text) is not None


def _young(text: str) -> str | None:
    """Find anybody young, unless the next word is an adult's: "a young, very slim one", "young  nude"."""
    for tokens in readings(text):
        for start in range(len(tokens)):
            if (found := YOUNG.at(tokens, start)) and not ADULTS.at(tokens, _after(tokens, start, len(found))):
                return found
    return None


def _after(tokens: Sequence[str], start: int, length: int) -> int:
    """Return the token after a word of so many letters that starts at a token."""
    while length > 0 and start < len(tokens):
        length -= len(tokens[start])
        start += 1
    return start


def _script(text: str) -> str | None:
    if text.isascii():
        return None
    folded = unicodedata.normalize("NFKC", text).casefold()
    return next((word for word in SCRIPTS if word in folded), None)
