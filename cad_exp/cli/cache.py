"""The command `python -m cad_exp cache`: list what finished stages occupy, and prune it."""

import math
import os
from datetime import datetime
from pathlib import Path

from cad_exp.config.arguments import Parser, WrongFlag, named_path
from cad_exp.pipeline.cache.entry import ENTRY, damage, entry_size, last_used
from cad_exp.pipeline.cache.folder import TAG, CacheFolder
from cad_exp.pipeline.cache.prune import prune
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.io import read_json


def _show(cache: CacheFolder) -> None:
    from rich.markup import escape
    from rich.table import Table

    stages: dict[str, list[Path]] = {}
    for place, _ in cache.entries():
        stages.setdefault(place.parent.name, []).append(place)
    table = Table(title=f"stage cache {escape(str(cache.folder))}", title_justify="left", header_style="bold")
    for column in ("stage", "entries", "MiB", "seconds to make", "last used"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, places in stages.items():
        seconds = sum(_seconds(place) for place in places)
        last = datetime.fromtimestamp(max(map(last_used, places))).isoformat(" ", "minutes")
        size = sum(map(entry_size, places)) / 2**20
        table.add_row(escape(stage), f"{len(places):,}", f"{size:,.1f}", f"{seconds:,.0f}", last)
    console.console().print(table)
    for place in cache.others():
        console.say(f"no entry, and left alone: {place.relative_to(cache.folder)}", style="yellow")


def _seconds(place: Path) -> float:
    try:
        return float((read_json(place / ENTRY) or {}).get("seconds", 0.0))
    except (TypeError, ValueError, OverflowError):
        return 0.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: 0, 1 for what is no cache, 2 for a wrong flag."""
    parser = Parser("python -m cad_exp cache", description="List or prune the stage cache.")
    parser.add_argument(
        "folder", type=named_path, nargs="?", default="outputs/cache", help="the cache (runtime.cache of the runs)"
    )
    parser.add_argument("--prune", action="store_true", help="remove entries; a run that needs one makes it again")
    parser.add_argument("--stage", help="only of this stage, for example images")
    parser.add_argument(
        "--older-than", type=float, default=0.0, metavar="DAYS", help="only what was not used for so long"
    )
    parser.add_argument("--damaged", action="store_true", help="only what fails its checksums")
    try:
        given = parser.parse_args(arguments)
        if not 0 <= given.older_than < math.inf:  # also nan: with it nothing would be young enough to be kept
            raise WrongFlag(f"--older-than {given.older_than:g} is no number of days: use 0 or more")
        cache = _opened(given.folder.expanduser())
        stages = sorted({place.parent.name for place, _ in cache.entries()})
        if given.stage and stages:
            choose(given.stage, stages, "stage in this cache")
        if given.prune:
            pruned = prune(cache, given.stage, given.older_than, given.damaged)
            console.say(f"removed {pruned.number:,} entries, {pruned.size / 2**20:,.1f} MiB")
            for place, reason in pruned.left:
                console.say(f"left: {place.relative_to(cache.folder)} {reason}", style="yellow")
        elif given.damaged:
            for place in cache.places():
                fault = damage(place)
                if fault:
                    console.say(f"{place.parent.name}/{place.name}: {fault}")
        else:
            _show(cache)
    except UserError as error:
        console.error(str(error))
        return process.MISUSED if isinstance(error, WrongFlag) else process.FAILED
    return 0


def _opened(folder: Path) -> CacheFolder:
    """Open the cache of the command, which makes none. UserError unless there is one."""
    if os.path.lexists(folder / TAG):
        return CacheFolder(folder)
    what = f"'{folder}' is no cache of cad_exp (there is no {TAG} in it)" if os.path.exists(folder) else None
    raise UserError(f"{what or f'there is no cache at {str(folder)!r}'}: give the folder that runtime.cache names")
