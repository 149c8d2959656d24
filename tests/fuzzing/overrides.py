"""Hostile arguments: the config's own keys with every kind of value, misspelt names, flags, prefixes, odd folders."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

from omegaconf import DictConfig, OmegaConf

from cad_exp.config import options as groups

FAST = ("evaluation=none", "tracking=disabled")


@dataclass(frozen=True)
class Case:
    """kind: its class. folder: the name of the current folder. refused: whether the answer must be an error.

    own: whether the command itself names a place to write to. module: what `python -m` starts.
    """

    kind: str
    arguments: tuple[str, ...]
    folder: str = "project"
    refused: bool = False
    own: bool = False
    module: str = "cad_exp"
    note: str = ""
    setup: object = field(default=None, compare=False)
    real: bool = False


# What stands after the `=` of a setting.
VALUES = {
    "empty": "",
    "quoted empty": "''",
    "null": "null",
    "question marks": "???",
    "word": "banana",
    "true": "true",
    "zero": "0",
    "negative": "-3",
    "fraction": "1.5",
    "huge": "1e308",
    "integer of 30 digits": "9" * 30,
    "integer of 5000 digits": "9" * 5000,
    "nan": "nan",
    "infinite": "-inf",
    "number in quotes": "'2'",
    "blank": "' '",
    "white space": "a b",
    "unicode": "é漢字",
    "emoji": "🦄",
    "right to left": "\u202eabc",
    "bytes": "a\udcffb",
    "bell": "a\x07b",
    "terminal escape": "'\x1b[31mred\x1b[0m'",
    "line break": "'a\nb'",
    "apostrophe": "it's",
    "double quote": 'say "hi"',
    "open quote": "'abc",
    "comma": "a, b",
    "commas": "a,b,c",
    "last comma": "a,",
    "equals": "a=b",
    "open brace": "{a",
    "closing brace": "a}",
    "dict": "{a: 1}",
    "empty dict": "{}",
    "open bracket": "[a",
    "list": "[1, b, null]",
    "empty list": "[]",
    "nested": "{a: {b: [1, {c: 2}]}}",
    "deep": "[" * 60 + "]" * 60,
    "dollars": "$$ cash",
    "open interpolation": "${",
    "empty interpolation": "${}",
    "unknown interpolation": "${nowhere.at.all}",
    "unknown resolver": "${nope:1}",
    "environment": "${oc.env:NOT_THERE}",
    "itself": "${%s}",
    "relative interpolation": "${.name}",
    "home": "~/x",
    "up": "../../x",
    "proc": "/proc/x",
    "null device": "/dev/null",
    "long": "x" * 4000,
    "long name": "'" + "y" * 300 + "'",
    "percent": "%s%d%n",
    "backslash": "a\\",
    "parentheses": "a(b)",
    "range": "range(1,3)",
    "glob": "glob(*)",
    "choice": "choice(1,2)",
    "cast": "int(a)",
    "hash": "#x",
    "colon": "a: b",
    "tag": "!!python/name:os.system",
    "markup": "[red]x[/red]",
    "at": "@x",
    "star": "*",
    "date": "2020-01-01",
}
FLAGS = (
    ["--version"],
    ["--cfg"],
    ["--cfg", "job"],
    ["--cfg", "hydra"],
    ["--cfg", "all"],
    ["--cfg", "nonsense"],
    ["--cfg", "job", "-m", "concept=church,tench"],
    ["--cfg", "job", "--resolve"],
    ["--cfg", "job", "--resolve", "concept=custom"],
    ["--cfg", "job", "--package", "nope"],
    ["--cfg", "job", "concept=nudty"],
    ["--resolve"],
    ["--multi", "seed=1,2"],
    ["--multirun"],
    ["-m"],
    ["-m", "concept=church,tench", "--multirun"],
    ["-m", "seed=1,x"],
    ["-m", "concept=glob(*_*)"],
    ["seed=1,2", "hydra.mode=MULTIRUN"],
    ["concept=glob(c*)"],
    ["--config-dir"],
    ["--config-dir", "nowhere"],
    ["--config-dir", "a=b"],
    ["--config-dir=a=b"],
    ["--config-dir", "notes.txt"],
    ["--config-dir", "thesis", "--config-dir", "data"],
    ["--config-dir", ""],
    ["--config-name", "nope"],
    ["--config-name"],
    ["-cn", "config"],
    ["--config-path", "nope"],
    ["-cp", "."],
    ["--package", "x"],
    ["--info", "nonsense"],
    ["--info", "defaults"],
    ["--run"],
    ["--run", "--multirun"],
    ["--shell-completion"],
    ["-sc", "nope"],
    ["--experimental-rerun", "nope"],
    ["--experimental-rerun", "notes.txt"],
    ["--unknown"],
    ["-x"],
    ["--seed=3"],
    ["--seed", "3"],
    ["--concept", "church"],
    ["concept", "church"],
    ["concept=church", "tench"],
    ["church"],
    ["="],
    ["=x"],
    [""],
    [" "],
    ["-"],
    ["--"],
    ["@file"],
    ["seed"],
    ["seed=1", "seed=2"],
    ["concept=church", "concept=tench"],
    ["'seed=1'"],
    ["seed:=1"],
    ["seed =1"],
    ["seed= 1"],
    ["é=1"],
    ["a.b.c.d=1"],
    [".=1"],
    ["seed.=1"],
    [".seed=1"],
    ["seed[0]=1"],
    ["evaluation.metrics[0]=erasure"],
    ["evaluation.metrics.0=erasure"],
    ["model.edits.0=x"],
    ["-m", "experiment=nope"],
    ["experiment=fidelity"],
    ["-m", "experiment=[nope,dose]"],
)
HYDRA = (
    "hydra.mode=nope",
    "hydra.job.chdir=true",
    "hydra.job.chdir=x",
    "hydra.output_subdir=.",
    "hydra.output_subdir=..",
    "hydra.output_subdir=null",
    "hydra.output_subdir=images",
    "hydra.verbose=true",
    "hydra.verbose=[x]",
    "hydra.job.name=a/b",
    "hydra.job.env_set.OMP_NUM_THREADS=x",
    "hydra.searchpath=[file://nowhere]",
    "hydra.searchpath=nowhere",
    "hydra.searchpath=[pkg://nope]",
    "hydra.launcher._target_=x",
    "hydra/launcher=nope",
    "hydra/launcher=basic",
    "hydra/sweeper=nope",
    "hydra/job_logging=disabled",
    "hydra/job_logging=nope",
    "hydra/help=nope",
    "hydra.callbacks.sweep._target_=nope.Nope",
    "hydra.callbacks.sweep=null",
    "hydra.callbacks=null",
    "hydra.nope=1",
    "hydra.run.nope=1",
    "hydra=null",
    "hydra.run=null",
    "hydra.job_logging=null",
    "hydra.job_logging.root.level=NOPE",
    "hydra.job_logging.handlers.file.filename=notes.txt/x",
    "hydra.hydra_logging=null",
    "hydra.runtime.cwd=thesis",
    "hydra.runtime.output_dir=thesis",
    "hydra.sweep=null",
    "hydra.help.template=x",
    "hydra.sweeper.params.seed=x",
    "hydra.sweeper.max_batch_size=0",
    "hydra.job.config.override_dirname.exclude_keys=x",
    "hydra.overrides.task=[x]",
    "hydra.sweep.dir=x",
    "~hydra.run.dir",
    "~hydra",
    "+hydra.x=1",
    "++hydra.run.dir=x",
)
# Names of folders; as the working folder, the run's and the sweep's.
FOLDERS = (
    "it's me",
    "a,b",
    "a=b",
    "a b",
    "(x)",
    "[x]",
    "{x}",
    "$HOME",
    "${x}",
    "é漢",
    'say "hi"',
    "a'b\"c",
    "#x",
    "%s",
    "~",
    "-m",
    "a:b",
    "a\\b",
    "a\\",
    "*",
    "🦄",
    "'quoted'",
    "a;b",
    "`a`",
    "x" * 200,
    " lead",
    "a\tb",
    "null",
    "1",
)
PLACES = (".", "..", "", "null", "notes.txt", "notes.txt/x", "/proc", "/proc/x", "/dev/null", "/dev/null/x", "link")
PLACES += ("images", ".git", "thesis", "data", "data/raw", "wandb", "outputs", "~", "~/x", "$HOME/x", "'${nope}'")
PLACES += ("z" * 300, "deep/" * 900, "'${seed}'", "../../../x", "latest.txt", "config", "-x")
PLACES += ("it's", "a,b", "a=b", "{x}")
COMMANDS = (
    ("cad_exp tables", []),
    ("cad_exp tables", ["nowhere"]),
    ("cad_exp tables", ["notes.txt"]),
    ("cad_exp tables", ["."]),
    ("cad_exp tables", ["thesis"]),
    ("cad_exp tables", ["z" * 300]),
    ("cad_exp tables", ["experiment=nope"]),
    ("cad_exp tables", ["experiment="]),
    ("cad_exp tables", ["experiment=fidelity"]),
    ("cad_exp tables", ["experiment=fidelity", "--from", "nowhere"]),
    ("cad_exp tables", ["experiment=fidelity", "--from", "."]),
    ("cad_exp tables", ["experiment=fidelity", "concept=it's"]),
    ("cad_exp tables", ["experiment=fidelity", "concept=a, b"]),
    ("cad_exp tables", ["experiment=fidelity", "sed=1"]),
    ("cad_exp tables", ["experiment=fidelity", "seed=${nope}"]),
    ("cad_exp tables", ["experiment=fidelity", "--to", "notes.txt"]),
    ("cad_exp tables", ["experiment=fidelity", "--to", "/proc/x"]),
    ("cad_exp tables", ["experiment=fidelity", "--config-dir", "nowhere"]),
    ("cad_exp tables", ["experiment=fidelity", "hydra.run.dir=x"]),
    ("cad_exp tables", ["experiment=fidelity", "~concept"]),
    ("cad_exp tables", ["concept=church"]),
    ("cad_exp tables", ["--nope"]),
    ("cad_exp cache", ["nowhere"]),
    ("cad_exp cache", ["."]),
    ("cad_exp cache", ["notes.txt"]),
    ("cad_exp cache", ["/dev/null"]),
    ("cad_exp cache", ["z" * 300]),
    ("cad_exp cache", [".", "--prune"]),
    ("cad_exp cache", [".", "--prune", "--older-than", "30"]),
    ("cad_exp cache", [".", "--prune", "--older-than", "nan"]),
    ("cad_exp cache", [".", "--prune", "--older-than", "-1"]),
    ("cad_exp cache", [".", "--prune", "--older-than", "x"]),
    ("cad_exp cache", [".", "--prune", "--damaged"]),
    ("cad_exp cache", [".", "--prune", "--stage", "data"]),
    ("cad_exp cache", [".", "--prune", "--stage", "thesis"]),
    ("cad_exp cache", ["..", "--prune"]),
    ("cad_exp cache", ["link", "--prune"]),
    ("cad_exp cache", [".", "--damaged"]),
    ("cad_exp cache", [".", "--stage", "dta"]),
    ("cad_exp search", ["concept=nudty"]),
    ("cad_exp search", ["trials=x"]),
    ("cad_exp search", ["trials=0"]),
    ("cad_exp search", ["retention=2"]),
    ("cad_exp search", ["trails=3"]),
    ("cad_exp search", ["space.ratio=[1]"]),
    ("cad_exp search", ["space.ratio=banana"]),
    ("cad_exp search", ["space.scope=[nope]"]),
    ("cad_exp search", ["folder=notes.txt"]),
    ("cad_exp search", ["folder=/proc/x"]),
    ("cad_exp search", ["concept.prompt=a, b"]),
    ("cad_exp search", ["--nope"]),
    ("cad_exp search", ["-m"]),
    ("cad_exp search", ["seed=1,2"]),
    ("cad_exp memory", ["model=nope"]),
    ("cad_exp memory", ["model="]),
    ("cad_exp memory", ["model=mini", "runtime.offload=nope"]),
    ("cad_exp memory", ["model=mini", "runtime.precision=nope"]),
    ("cad_exp memory", ["model=mini", "sed=1"]),
    ("cad_exp memory", ["model=mini", "concept.prompt=a, b"]),
    ("cad_exp memory", ["--nope"]),
)
# What the issue names: these must be refused, each in one sentence, whatever class of value they are.
NAMED = (
    ["concept.name=../../x"],
    ["concept.name=/proc/x"],
    ["concept.name=a/b"],
    ["concept.name=.."],
    ["concept.name=''"],
    ["concept.prompt=''"],
    ["concept.prompt='  '"],
    ["concept.prompt='a photo of a person'"],
    ["concept=custom", "concept.prompt=''"],
    ["concept=church", "concept.label=Church", "evaluation=default"],
    ["edit.factor=1"],
    ["edit.factor=1.0"],
    ["edit.sign=negative"],
    ["evaluation=default", "evaluation.bootstrap=0"],
    ["evaluation=default", "evaluation.fidelity.bootstrap=0"],
    ["prompts=templates", "retention_prompts=none", "evaluation=default", "prompts.offset=1.5"],
    ["prompts=templates", "retention_prompts=none", "evaluation=default", "prompts.limit='2'"],
    ["model.weights=weights/x.safetensors"],
    ["model=local", "model.path=weights/x.safetensors"],
    ["model=local", "model.path=notes.txt"],
    ["model.edits=[nowhere]"],
    ["model.edits=notes.txt"],
    ["model.edits=nowhere"],
    ["concept.prompt=a red, round ball"],
    ["concept.prompt=it's"],
    ["concept.prompt=a=b"],
    ["concept.prompt={a"],
    ["concept.prompt=a}b"],
    ["concept.prompt=[a"],
    ["concept.prompt=${nowhere}"],
    ["objective=amplify", "noisy_latents.images='nowhere'"],
    ["objective=amplify", "noisy_latents.images='~/nowhere'"],
    ["objective=amplify", "noisy_latents.images='images'"],
    ["runtime.cache=notes.txt"],
    ["runtime.cache=/dev/null"],
    ["hydra.run.dir=notes.txt"],
    ["hydra.run.dir=/proc/x"],
    ["hydra.run.dir=."],
    ["hydra.run.dir=images"],
    ["hydra.run.dir=.."],
)
# Quoted as they should be: these must be taken.
TAKEN = (
    ["concept.prompt='a red, round ball'"],
    ["concept.prompt='it\\'s'"],
    ['concept.prompt="it\'s"'],
    ["concept.prompt='a=b'"],
    ["concept.prompt='{a} [b] (c)'"],
    ["concept.prompt='$$ cash'"],
    ["concept.prompt='漢字 🦄'"],
    ["concept.prompt=':church:'"],
    ["concept.prompt='[red]x[/red]'"],
    ["evaluation=default", "concept.evaluation_prompts='a photo of a naked person'"],
    ["prompts=i2p", "retention_prompts=none", "judge=none", "evaluation.metrics=[erasure]", "prompts.without=child"],
    ["tracking=disabled", "tracking.tags=mine"],
    ["hydra.run.dir=new/folder"],
    ["-m", "seed=1,2"],
    ["--multi", "seed=1,2"],
    ["seed=1,2", "hydra.mode=MULTIRUN"],
    ["-m", "granularity=glob(*e*)"],
    ["--cfg", "job"],
    ["--version"],
    ["--help"],
)


@cache
def keys() -> dict[str, tuple[str, ...]]:
    """Every setting, also those of options that are not the default's, with the options that make it one."""
    root, found = groups.conf_folder(), {}
    for group in groups.GROUPS:
        for file in sorted((root / group).glob("[!_]*.yaml")):
            content = OmegaConf.load(file)
            choice = (f"{group}={file.stem}",)
            if group == "experiment" or not isinstance(content, DictConfig):
                continue
            for key in _paths(content):
                found.setdefault(f"{group}.{key}", choice)
    for group in ("prompts", "retention_prompts"):
        for key in _paths(OmegaConf.load(root / "prompts" / "_set.yaml")):
            found[f"{group}.{key}"] = (f"{group}=i2p" if group == "prompts" else "retention_prompts=coco30k",)
    return found | {"seed": ()} | dict.fromkeys(groups.GROUPS, ())


def _paths(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        if key in ("defaults", "name") or (OmegaConf.is_missing(node, key) and not prefix and key == "x"):
            continue
        yield f"{prefix}{key}"
        value = None if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key) else node[key]
        if isinstance(value, DictConfig):
            yield from _paths(value, f"{prefix}{key}.")


def _typo(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word))
    return rng.choice(
        [
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
            word[:place] + rng.choice("xqz_-.") + word[place:],
            word.upper(),
            word + "s",
        ]
    )


def value(rng: random.Random) -> Case:
    """A setting of the config and a value of any kind."""
    key, choice = rng.choice(sorted(keys().items()))
    name, text = rng.choice(sorted(VALUES.items()))
    text = text % key if name == "itself" else text
    own = key in ("runtime.cache",) or key.startswith("hydra")
    measured = () if key.startswith("evaluation") or rng.random() < 0.5 else ("evaluation=none",)
    return Case("value", (*measured, "tracking=disabled", *choice, f"{key}={text}"), own=own, note=name)


def name(rng: random.Random) -> Case:
    """A group, option or setting that is not there, or nearly."""
    key = rng.choice(sorted(keys()))
    group = rng.choice(sorted(groups.GROUPS))
    options = sorted(groups.options(group, [groups.conf_folder()])) or ["x"]
    option = rng.choice(options)
    given = rng.choice(
        [
            f"{_typo(key, rng)}=1",
            f"{key}.below=1",
            f"{group}={_typo(option, rng)}",
            f"{_typo(group, rng)}={option}",
            f"{group}=[{option},{option}]",
            f"{group}={{a:1}}",
            f"{group}=../config",
            f"{group}=/etc/passwd",
            f"concept={option}.yaml",
            f"{group}={option}/x",
            f"{group}/x={option}",
            f"{group}@x={option}",
            f"{group}@={option}",
            f"{group}=_object",
            f"concept={option},{_typo(option, rng)}",
            f"{group}=null",
            f"{group}=",
            f"{group}=1",
            f"{group} = {option}",
        ]
    )
    flag = ("-m",) if rng.random() < 0.2 else ()
    return Case("name", (*flag, given))


def flag(rng: random.Random) -> Case:
    """Flags of ours and of Hydra's, and what is no override at all."""
    return Case("flag", tuple(rng.choice(FLAGS)), own=False)


def prefix(rng: random.Random) -> Case:
    """Settings that are removed, added or forced."""
    key = rng.choice(sorted(keys()))
    given = rng.choice(
        [f"~{key}", f"~{key}", f"~{key}=x", f"+{key}=1", f"++{key}.new=1", f"+{key}.new=1", "~", "+", "++", "~nope"]
        + ["+new=1", "++new.deep.key=1", "+concept=church", "~concept", f"+{key}", f"++{key}", f"~~{key}", f"-{key}=1"]
    )
    flag = ("-m",) if rng.random() < 0.2 else ()
    return Case("prefix", (*FAST, *flag, given))


def hydra(rng: random.Random) -> Case:
    """Hydra's own settings."""
    flag = ("-m", "seed=1,2") if rng.random() < 0.25 else ()
    return Case("hydra", (*FAST, *flag, rng.choice(HYDRA)), own=True)


def place(rng: random.Random) -> Case:
    """A run or a sweep in a folder that cannot be one, or that holds files of somebody else."""
    given = rng.choice(PLACES)
    key = rng.choice(["hydra.run.dir", "hydra.run.dir", "hydra.run.dir", "runtime.cache", "hydra.sweep.dir", "sub"])
    if key == "sub":
        return Case(
            "place", (*FAST, "-m", "seed=1,2", "hydra.sweep.dir=outputs", f"hydra.sweep.subdir={given}"), own=True
        )
    flag = ("-m", "seed=1,2") if key == "hydra.sweep.dir" else ()
    return Case("place", (*FAST, *flag, f"{key}={given}"), own=True)


def folder(rng: random.Random) -> Case:
    """A sweep in which a job fails, in an odd folder, or with an odd value: what it prints is run again."""
    odd = rng.choice(FOLDERS)
    quoted = "'" + odd.replace("\\", "\\\\").replace("'", "\\'") + "'"
    choice = rng.random()
    if choice < 0.4:
        return Case("folder", ("-m", "seed=12,13", *FAST), folder=odd.replace("/", "_"))
    if choice < 0.6:
        return Case("folder", ("-m", "seed=12,13", *FAST, f"concept.base_prompt={quoted}"))
    if choice < 0.75:
        return Case("folder", ("-m", "seed=12,13", *FAST, f"concept.base_prompt={quoted},x"))
    if choice < 0.9:
        return Case("folder", ("-m", "seed=12,13", *FAST, f"hydra.sweep.dir={quoted}"), own=True)
    return Case("folder", ("seed=13", *FAST, f"hydra.run.dir={quoted}"), own=True)


def command(rng: random.Random) -> Case:
    """The other commands."""
    module, arguments = rng.choice(COMMANDS)
    return Case("command", tuple(arguments), module=module, own="--to" in arguments or "folder=" in str(arguments))


def named(rng: random.Random) -> Case:
    """What the issue says must be refused."""
    given = rng.choice(NAMED)
    first = [] if any("evaluation" in item for item in given) else ["evaluation=none"]
    return Case("named", (*first, "tracking=disabled", *given), refused=True)


def taken(rng: random.Random) -> Case:
    """What is right and must be taken."""
    return Case("taken", tuple(rng.choice(TAKEN)), own=True)


# How many in a hundred.
KINDS: dict[Callable[[random.Random], Case], int] = {
    value: 36,
    name: 10,
    flag: 10,
    prefix: 8,
    hydra: 8,
    place: 8,
    folder: 5,
    command: 7,
    named: 5,
    taken: 3,
}


def generate(number: int, seed: int) -> Iterator[Case]:
    """So many different cases, the kinds in turn by their weights."""
    rng = random.Random(seed)
    order = sorted(((place + 0.5) / weight, kind.__name__) for kind, weight in KINDS.items() for place in range(weight))
    makers = {kind.__name__: kind for kind in KINDS}
    seen: set[Case] = set()
    for turn in range(number):
        maker = makers[order[turn % len(order)][1]]
        for _ in range(200):
            case = maker(rng)
            if case not in seen:
                break
        seen.add(case)
        yield case
