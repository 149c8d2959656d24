"""One sentence for each way to misspell a command, in place of Hydra's own words."""

import re
from pathlib import Path

from cad_exp.config.options import GROUPS, LAUNCHERS, options, unknown
from cad_exp.utils.errors import UserError


def explain(error: BaseException, folders: list[Path]) -> str:
    """Explain in one line what is wrong with the command and what to write instead."""
    chain = [error]
    while deeper := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(deeper)
    if own := next((link for link in chain if isinstance(link, UserError)), None):  # of a resolver of ours
        return str(own)
    text = "\n".join(str(link) for link in chain)
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.filename}' cannot be used: {error.strerror}"
    for look in (_unknown_option, _no_name, _unknown_setting, _no_value, _reference, _several, _misfit):
        if told := look(text, chain, folders):
            return told
    # without the lines in which OmegaConf tells its own state
    said = next((line.strip() for line in str(chain[-1]).splitlines() if line.strip()), "no reason given")
    if type(error).__module__.partition(".")[0] in ("hydra", "omegaconf"):
        return f"{said} (--help shows the options)"
    return f"Hydra cannot work with this command ({said}): leave out its hydra settings"


def _unknown_option(text: str, chain: list[BaseException], folders: list[Path]) -> str | None:
    missing = re.search(r"(?:Could not find|Could not load) '((?:hydra/)?\w+)/([^']*)'", text)
    if not missing:
        return None
    if missing[1] == "hydra/launcher" and missing[2] in LAUNCHERS:
        return f"hydra/launcher={LAUNCHERS[missing[2]]} is not installed: pip install 'cad-exp[launchers]'"
    return unknown(missing[2], list(options(missing[1], folders)), missing[1])


def _no_name(text: str, chain: list[BaseException], folders: list[Path]) -> str | None:
    """Explain that a number or null chooses no option: of a sweep in an experiment's file."""
    if "Config group override must be a string or a list" not in text:
        return None
    return "an option of a group is chosen by no name: a name that looks like a number, or null, stands in quotes"


def _unknown_setting(text: str, chain: list[BaseException], folders: list[Path]) -> str | None:
    gone = re.search(r"Could not delete (?:from config\. )?'([^']*)'", text)
    if gone:
        return f"'~{gone[1]}' finds nothing to leave out: {_unknown_key(gone[1].partition('=')[0], folders, True)}"
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if not key or not ("not in struct" in text or "Could not override" in text):
        return None
    if key[1].startswith("hydra"):
        return f"unknown setting '{key[1]}': --cfg hydra (and your hydra/launcher=...) shows them all"
    return _beside(key[1], chain, folders) or _unknown_key(key[1], folders)


def _beside(key: str, chain: list[BaseException], folders: list[Path]) -> str | None:
    """List the keys that stand beside a misspelt one in the command's own config, where the error still holds it."""
    from omegaconf import DictConfig

    group, _, name = key.rpartition(".")
    for link in chain:
        node = getattr(link, "parent_node", None)
        if not isinstance(node, DictConfig) or not node or not group or node._get_full_key(None) != group:
            continue
        if name not in node:
            if having := _having(group, name, folders):
                told = f"{group}={', '.join(having)} "
                told += "has it, so choose that" if len(having) == 1 else "have it, so choose one of them"
                return f"unknown setting in {group} '{name}': {told}"
            return unknown(name, [str(each) for each in node], f"setting in {group}")
    return None


def _having(group: str, name: str, folders: list[Path]) -> list[str]:
    """Return the options of a group whose file has a key, or a file (_name.yaml) that it is made of."""
    key = re.compile(rf"^{re.escape(name)}:", re.MULTILINE)
    texts = {
        path.stem: path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted((folder / group).glob("*.yaml"))
    }
    having = {stem for stem, text in texts.items() if key.search(text)}
    while more := {
        stem
        for stem, text in texts.items()
        for made in re.findall(r"^defaults: *\[(.*)\]", text, re.MULTILINE)
        if stem not in having and having & set(made.replace(" ", "").split(","))
    }:
        having |= more
    return sorted(stem for stem in having if not stem.startswith("_"))


def _no_value(text: str, chain: list[BaseException], folders: list[Path]) -> str | None:
    if "Missing mandatory value" not in text:
        return None
    empty = next((str(key) for link in chain if (key := getattr(link, "full_key", None))), "a setting")
    return f'{empty} has no value: add {empty}="..." to the command'


def _reference(text: str, chain: list[BaseException], folders: list[Path]) -> str | None:
    """Explain references ${...} to what is not there, and those that cannot be read."""
    key = next((str(key) for link in chain if (key := getattr(link, "full_key", None))), "a setting")
    as_text = "for the text ${ itself write \\${"
    absent = re.search(r"Interpolation key '([^']*)' not found", text)
    group, _, name = absent[1].partition(".") if absent else ("", "", "")
    if key.startswith("hydra.") and group in GROUPS and name:
        return f"{group}.{name} is missing, which names the run's folder: add '{name}: ...' to the file of your {group}"
    if absent and key.startswith("hydra."):
        return f"a name refers to '{absent[1]}', and there is no such setting (hydra.run.dir, concept.name)"
    if absent:
        return f"{key} refers to '{absent[1]}', and there is no such setting; {as_text}"
    unset = re.search(r"Environment variable '([^']*)' not found", text)
    if unset:
        return f"{key} refers to the environment variable {unset[1]}, which is not set"
    if re.search(r"nterpolation|GrammarParseError|resolver", text) or any(
        type(link).__name__ in ("GrammarParseError", "RecursionError", "UnsupportedInterpolationType") for link in chain
    ):
        return f"{key} holds a reference with ${{ that leads nowhere; {as_text}"
    return None


def _several(text: str, chain: list[BaseException], folders: list[Path]) -> str | None:
    several = re.search(r"Ambiguous value for argument '([^']+)'", text, re.DOTALL)
    if several:
        return f"'{several[1]}' names several values: add -m to run them one after the other"
    return None


def _misfit(text: str, chain: list[BaseException], folders: list[Path]) -> str | None:
    if absent := re.search(r"path=(.*) is not available", text):
        return f"there is no folder '{absent[1]}' with options (hydra.searchpath)"
    override = re.search(r"Error merging override (.*)", text)
    if not override:
        return None
    allowed = re.search(r"expected one of \[([^\]]*)\]", text)
    return f"'{override[1]}' is no value that this setting takes" + (f": use {allowed[1]}" if allowed else "")


def refused(error: BaseException) -> str | None:
    """Explain in one line why a launcher could not start the jobs, or lost one; None for every other error."""
    text = str(error)
    if "are you indeed on a slurm cluster" in text:
        return "this machine has no Slurm: type the command on the cluster's front end, or take hydra/launcher=submitit"
    reasons = list(dict.fromkeys(re.findall(r"sbatch: (?:error|fatal): (.+)", text)))
    if reasons:
        settings = "hydra.launcher.partition, .account, .gpus_per_node, .cpus_per_task, .mem_gb"
        return f"Slurm refuses the jobs: {'; '.join(reasons)} (see {settings})"
    lost = ("UncompletedJobError", "TerminatedWorkerError", "WorkerCrashedError", "OutOfMemoryError")
    if type(error).__module__.split(".")[0] in ("submitit", "joblib", "ray") and type(error).__name__ in lost:
        state = re.search(r"state: (?!FINISHED)(\w+)", text)
        return (
            f"a job ended without a result{f' ({state[1]})' if state else ''}: out of memory or out of time? "
            "Its log is in the sweep's folder; the same command goes on where this one stopped"
        )
    return None


def _unknown_key(key: str, folders: list[Path], gone: bool = False) -> str:
    """List the keys that stand beside a misspelt one, read from the default configuration.

    gone: it was to be left out.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folders[0]), version_base="1.3"):
        node = compose("config")
    *parents, name = key.split(".")
    for depth, parent in enumerate(parents):
        if parent in node and not isinstance(node[parent], DictConfig):
            what = "null" if node[parent] is None else "one value"
            return f"'{'.'.join(parents[: depth + 1])}' is {what}, it has no settings below it: '{key}'"
        children = node.get(parent)
        if not isinstance(children, DictConfig):
            return unknown(parent, list(node), "setting" + (f" in {'.'.join(parents[:depth])}" if depth else ""))
        node = children
    if name in node:  # by default, and not in this command
        where = ".".join(parents)
        return f"{key} is null already" if gone else f"'{where}' is null in this command, so there is no '{key}'"
    return unknown(name, list(node), "setting" + (f" in {'.'.join(parents)}" if parents else ""))
