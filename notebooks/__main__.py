"""`python -m notebooks [NAME ...]`: run the notebooks from top to bottom, and keep what each cell printed and drew."""

import argparse
import os
import sys

from notebooks.execute import FOLDER, names, run


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser("python -m notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *names()], metavar="NAME", help=f"of {', '.join(names())}")
    # Threads that spin while they wait slow down small machines.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in parser.parse_args(arguments).names or names():
        path = FOLDER / f"{name}.ipynb"
        run(path, to=path)
        print(f"{path.name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
