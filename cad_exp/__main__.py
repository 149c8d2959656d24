"""The command line: `python -m cad_exp concept=nudity granularity=neuron`, and `python -m cad_exp tables FOLDER`."""

import sys
from importlib import import_module

from cad_exp.cli import COMMANDS
from cad_exp.utils import process


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: 0, 1 if a run failed, 2 if the command is wrong, 130 by Ctrl-C, 143 by SIGTERM."""
    given = sys.argv[1:] if arguments is None else arguments
    name, rest = (given[0], given[1:]) if given and given[0] in COMMANDS else ("run", given)

    # imported once signals are ours
    return process.run(lambda: import_module(f"cad_exp.cli.{name}").main(rest))


if __name__ == "__main__":
    sys.exit(main())
