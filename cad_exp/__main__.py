"""The command line: `python -m cad_exp concept=nudity granularity=neuron`."""

import sys

from cad_exp import entry


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: 0, 1 if a run failed, 2 if the command is wrong, 130 by Ctrl-C, 143 by SIGTERM."""
    given = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        from cad_exp import cli  # once signals are ours

        return cli.main(given)

    return entry.run(command)


if __name__ == "__main__":
    sys.exit(main())
