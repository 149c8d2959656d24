"""Commands as they are printed: what is pasted into a shell gives the same overrides with the same values.

Two grammars lie between the text and a value: the shell's, and that of Hydra's overrides.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from cad_exp.config import options

# What Hydra reads as the text itself, without quotes: no number, no word of its grammar, nothing that splits.
_PLAIN = re.compile(r"[A-Za-z_/][\w/@%.-]*", re.ASCII)
_WORDS = {"null", "true", "false", "nan", "inf"}


def text(value: object) -> str:
    """Write a text, number, truth value, None or list as a value in Hydra's override grammar."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, (int, float)):
        return repr(value)
    content = literal(str(value))
    if _PLAIN.fullmatch(content) and content.lower() not in _WORDS:
        return content
    return quoted(content)


def literal(content: str) -> str:
    """Escape a text so that OmegaConf takes no ${ for a reference: a backslash stands before it."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", content)


def quoted(content: str) -> str:
    """Quote a text in Hydra's grammar, as it stands: references with ${ are left in force."""
    mark = "'" if '"' in content else '"'
    # a backslash counts as itself, but for those before a quotation mark, also before the closing one
    inner = re.sub(rf"(\\*){mark}", rf"\1\1\\{mark}", content)
    return mark + re.sub(r"(\\+)\Z", r"\1\1", inner) + mark  # \Z: not before a last line break


def override(key: str, value: object) -> str:
    """Write `key=value` so that Hydra reads exactly this value."""
    return f"{key}={text(value)}"


def shell(command: str, arguments: Iterable[str], folders: Iterable[Path] = ()) -> str:
    """Write the command line that runs "cad_exp" or "cad_exp tables" with these arguments and --config-dir folders."""
    own = [f"--config-dir={folder}" for folder in folders if folder not in options.installed()]
    return shlex.join(["python", "-m", *command.split(), *own, *arguments])
