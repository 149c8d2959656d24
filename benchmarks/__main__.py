"""`python -m benchmarks [--model mini] [--only ROW] [--quick]`: a table, and a JSON beside a picture in results/."""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Read when torch is loaded: threads that spin while they wait slow down small machines.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Bench, Row
from benchmarks.models import MODELS
from benchmarks.scaling import device_slug
from cad_exp.utils.errors import UserError

ROWS = ("attribution", "granularities", "ablations", "interactions", "images")
ROWS += ("noisy_latents", "scaling", "startup", "sweep", "sae")
RESULTS = Path(__file__).parent / "results"
console = Console(width=None if sys.stdout.isatty() else 160)


def main(arguments: list[str] | None = None) -> int:
    """Measure the rows asked for; results of other rows already in the JSON are kept. The exit code is 0, or 1."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="mini", help="sd14_shape is meant for a GPU")
    parser.add_argument("--only", choices=ROWS, action="append", help="this row; may be given more than once")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; not for numbers")
    parser.add_argument("--repeats", type=int, default=None, help="repeats of each measurement (3; 1 with --quick)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (PyTorch's choice)")
    parser.add_argument("--out", type=Path, default=None, help="folder of the results")
    parser.add_argument("--force", action="store_true", help="measure sd14_shape without a GPU all the same")
    options = parser.parse_args(arguments)
    if options.model == "sd14_shape" and not torch.cuda.is_available() and not options.force:
        console.print("[red]error:[/red] sd14_shape takes hours without a GPU: use --model mini, or add --force")
        return 1
    if options.threads:
        torch.set_num_threads(options.threads)
    # A quick run never overwrites real numbers.
    out = options.out or (RESULTS / "quick" if options.quick else RESULTS)
    bench = Bench(options.model, out, options.quick, options.repeats or (1 if options.quick else 3))
    path = out / f"{device_slug()}-{options.model}.json"
    try:
        for name in options.only or ROWS:
            console.print(f"[bold]{name}[/bold] ...")
            found = list(import_module(f"benchmarks.{name}").rows(bench))
            show(name, found)
            save(path, name, found, bench)
    except UserError as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        return 1
    console.print(f"results: {path}", highlight=False)
    return 0


def show(title: str, found: list[Row]) -> None:
    """The rows as a table on the terminal."""
    table = Table(title=title, title_justify="left")
    for column in ("what", "ours", "peer", "ratio", "target", "met", "notes"):
        table.add_column(column, justify="left" if column in ("what", "notes") else "right")
    for row in found:
        ours, peer = ("" if value is None else f"{value:.4g} {row.unit}" for value in (row.ours, row.peer))
        ratio, met = "" if row.ratio is None else f"{row.ratio:.3g}", {True: "yes", False: "no", None: ""}[row.met]
        table.add_row(row.name, ours, peer, ratio, row.target, met, row.notes)
    console.print(table)


def save(path: Path, name: str, found: list[Row], bench: Bench) -> None:
    """Put the rows into the results file, beside those of other rows; moved into place at once."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    content["rows"][name] = [asdict(row) | {"threads": torch.get_num_threads(), "load": load()} for row in found]
    content |= {"model": bench.model, "quick": bench.quick, "repeats": bench.repeats, "machine": machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    os.replace(draft, path)


def load() -> float | None:
    """Runnable processes per core, averaged over the last five minutes: well above 1 means a busy machine."""
    return round(os.getloadavg()[1] / (os.cpu_count() or 1), 2) if hasattr(os, "getloadavg") else None


def machine() -> dict[str, Any]:
    """Device, cores and versions; no date and no names of people or folders."""
    packages = ("torch", "diffusers", "transformers", "numpy")
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


if __name__ == "__main__":
    sys.exit(main())
