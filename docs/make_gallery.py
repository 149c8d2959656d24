"""Makes the gallery of finished runs: `python docs/make_gallery.py FOLDER... [--reports] [--to docs/gallery.md]`.

With `--make FOLDER` the runs themselves come first: those of docs/gallery.yaml, each in a folder of its own in FOLDER.
What is finished there is not made again. A run that fails is named, left out of the page, and does not stop the others.

The page is made from the run folders alone. A picture of a run is shown as the run left it, so explicit images stay
covered as the run was told. With `--reports` the report of each run that has one lies beside the pictures, with a link.
"""

import argparse
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from PIL import Image

from cad_exp.config import commands
from cad_exp.reporting.tables.collect import Run, read_all
from cad_exp.utils import console
from cad_exp.utils.errors import UserError, reason_of
from cad_exp.utils.io import atomic
from cad_exp.utils.text import line, markdown

PICTURES = {  # the first that is there, and what it shows
    "before_after.png": "images before the edit, after it, and after a random edit",
    "probes.png": "accuracy of probes by layer and timestep",
    "analysis.png": "what the analysis found",
    "features.png": "measures of the autoencoder and of its controls",
    "latents.png": "images on which single latents act most",
}
HERE = Path(__file__).parent
WIDTH, HEIGHT, QUALITY = 900, 620, 82  # pixels, and of the JPEG
HEAD = """\
# Gallery

Finished runs of the built-in models, each with its command, its verdict and a picture. [Quickstart](quickstart.md) says
how to read a verdict. This page is made from run folders ([how](development.md#gallery)). Below each run stands the git
revision of its numbers.
"""


def page(folders: list[Path], to: Path, reports: bool = False) -> str:
    """Return the page of all finished runs below the folders; pictures, and reports, go into a folder beside `to`.

    Raises UserError where no finished run lies there.
    """
    runs, skipped = read_all(folders)
    finished = [run for run in runs if run.complete]
    for folder in [*(run.folder for run in runs if not run.complete), *skipped]:
        console.say(f"left out, not finished or no run: {line(folder)}", stderr=True)
    if not finished:
        raise UserError(f"there is no finished run below {', '.join(map(str, folders))}: give folders of runs")
    beside = to.parent / "images" / to.stem
    beside.mkdir(parents=True, exist_ok=True)
    return "\n".join([HEAD, *(entry(run, beside, to.parent, reports) for run in finished)])


def entry(run: Run, beside: Path, base: Path, reports: bool) -> str:
    """Return what the page says of one run; what it shows is put into the folder `beside`."""
    parts = [f"## {markdown(title(run))}", "", f"`{command(run.folder)}`", ""]
    name = re.sub(r"\W+", "-", title(run)) + f"-{run.run['config_hash'][:6]}"
    if (source := next((run.folder / each for each in PICTURES if (run.folder / each).is_file()), None)) is not None:
        picture = thumbnail(source, beside / f"{name}.jpg")
        parts += [f"![{markdown(title(run))}: {PICTURES[source.name]}]({picture.relative_to(base).as_posix()})", ""]
    parts += [f"- {markdown(sentence)}" for sentence in verdict(run)]
    made = f"*{markdown(run.run['model'])}, seed {run.run['seed']}, git revision {(run.run['git'] or 'unknown')[:7]}.*"
    if reports and (run.folder / "report.html").is_file():
        shutil.copyfile(run.folder / "report.html", beside / f"{name}.html")
        made += f" [The report]({(beside / f'{name}.html').relative_to(base).as_posix()})"
    return "\n".join([*parts, "", made, ""])


def make(runs: Path, to: Path) -> tuple[list[Path], int]:
    """Make the runs of a list in a folder; return the folders of those that succeeded, and how many failed.

    Raises UserError where the list cannot be read.
    """
    made, failed = [], 0
    for told in listed(runs):
        name = re.sub(r"\W+", "-", told)[:80]  # a file system has a longest name
        folder = (to / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:6]}").absolute()
        console.say(f"python -m cad_exp {told}")
        own = [sys.executable, "-m", "cad_exp", *shlex.split(told), commands.override("hydra.run.dir", folder)]
        if subprocess.run(own, check=False).returncode or not folder.is_dir():
            console.error(f"this run failed, and is left out: {told}")
            failed += 1
        else:
            made.append(folder)
    return made, failed


def listed(runs: Path) -> list[str]:
    """Return the commands of a list. UserError where it cannot be read, or is no list of texts."""
    try:
        found = yaml.safe_load(runs.read_text(encoding="utf-8"))
        for told in found if isinstance(found, list) else ():
            shlex.split(str(told))
    except (OSError, ValueError, yaml.YAMLError) as error:  # of a text that is not UTF-8, or a quotation without end
        raise UserError(f"'{runs}' cannot be read ({reason_of(error)}): give a YAML list of commands") from error
    if not isinstance(found, list) or not found or not all(isinstance(each, str) for each in found):
        raise UserError(f"'{runs}' is no list of commands: write lines such as - concept=church granularity=head")
    return found


def title(run: Run) -> str:
    """Return the names of what was chosen: concept, granularity and edit, or the task and what it looked at."""
    known = run.run
    words = ("concept", "granularity", "edit") if known["task"] == "attribute" else ("task", "analysis", "probe", "sae")
    return ", ".join(str(known[word]) for word in words if known.get(word))


def command(folder: Path) -> str:
    """Return the command that makes the run again."""
    overrides = yaml.safe_load((folder / "config" / "overrides.yaml").read_text(encoding="utf-8")) or []
    own = [str(each) for each in overrides if not str(each).startswith(("hydra.", "tracking", "runtime."))]
    return line(" ".join(["python -m cad_exp", *own])).replace("`", "'")


def verdict(run: Run) -> list[str]:
    """Return the sentences in which the run said what it found."""
    said = run.run.get("verdict") or {}
    return [f"{part}: {text}" for part, text in said.items() if text]


def thumbnail(source: Path, to: Path) -> Path:
    """Write a smaller picture, the upper part of a long one, and return its path."""
    with Image.open(source) as image:
        small = image.convert("RGB")
        small = small.resize((WIDTH, round(small.height * WIDTH / small.width)), Image.Resampling.LANCZOS)
        small.crop((0, 0, WIDTH, min(small.height, HEIGHT))).save(to, quality=QUALITY, optimize=True)
    return to


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser("python docs/make_gallery.py", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of runs, or with runs below it")
    parser.add_argument(
        "--make", type=Path, metavar="FOLDER", help="make the runs of the list there, and show them first"
    )
    parser.add_argument("--runs", type=Path, default=HERE / "gallery.yaml", metavar="LIST.yaml", help="of --make")
    parser.add_argument("--to", type=Path, default=HERE / "gallery.md", metavar="PAGE.md")
    parser.add_argument("--reports", action="store_true", help="copy the runs' report.html beside the pictures")
    given = parser.parse_args(arguments)
    if not given.folders and given.make is None:
        parser.error("give folders of runs, or --make FOLDER")
    try:
        made, failed = make(given.runs, given.make) if given.make else ([], 0)
        if failed and not made and not given.folders:
            raise UserError("no run succeeded, so there is no page to make: mend what stands above, and try again")
        text = page([*made, *given.folders], given.to, given.reports)
    except UserError as error:
        console.error(str(error))
        return 1
    with atomic(given.to) as draft:
        draft.write_text(text, encoding="utf-8")
    print(given.to)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
