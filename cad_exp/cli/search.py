"""The command line: `python -m cad_exp search concept=nudity granularity=neuron trials=30 retention=0.95`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from cad_exp.pipeline import preflight
from cad_exp.pipeline.search.plan import Plan, read
from cad_exp.pipeline.search.possible import narrow
from cad_exp.pipeline.search.study import Study, import_optuna
from cad_exp.pipeline.search.trials import Run, search
from cad_exp.reporting import summary, wording
from cad_exp.reporting.results import run_info
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import write_json
from cad_exp.utils.process import FAILED, MISUSED

HELP = """\
Searches the edit (how many components, chosen where, scored how) that erases a concept most while it keeps the rest.

  python -m cad_exp search concept=nudity granularity=neuron trials=30 retention=0.95

Every trial is an ordinary run. The same command goes on where it was stopped; with more trials= it goes further.
It ends with the Pareto front as a table, pareto.png, pareto.csv and search.json, and with two commands: one repeats
the best edit as an ordinary run, one evaluates it on images that the search has not seen.

Of the search:
  trials=30                    how many edits to try, in all
  retention=0.95               the least retention_mean (0..1) that the best edit must keep
  folder=FOLDER                the study's folder (default: outputs/search/<concept>-<granularity>-<hash>)
  space.ratio=[0.005,0.5]      edit.ratio between these, on a logarithmic scale
  space.scope=[global,layer]   edit.scope out of these (default: all that the granularity has)
  space.estimator=[first_order]  estimator out of these (default: first_order, ablated_gradients)
  space.objective=[erase,projection]  objective out of these (default: not searched)
  space.factor=[0,-1]          edit.factor out of these (default: not searched)

Of a run, as in python -m cad_exp --help; a value that is given here is not searched:
  concept=church  granularity=head  model=sd14  edit=amplify  edit.scope=layer  estimator=first_order  seed=1
  evaluation.samples=16 evaluation.retention_samples=4    fewer images: faster, and wider intervals

  --config-dir FOLDER          your own options, as for a run"""


def report(plan: Plan, study: Study) -> None:
    """Show the front as table, picture and CSV, write search.json, and say what to type next."""
    from cad_exp.reporting import pareto_front

    rows = [
        {"trial": None, **plan.default(), **row, "folder": str(Path("trials") / str(row["trial"]))}
        for row in study.finished()
    ]
    failed = study.failed()
    on_front, best, closest = pareto_front.rank(rows, plan.bound, plan.higher)
    chosen, folder, config = best or closest, plan.folder, plan.config
    parameters = {name: chosen[name] for name in plan.space} if chosen else {}
    commands = {"repeat": plan.command(parameters), "evaluate": plan.command(parameters, fresh=True)} if chosen else {}
    facts = run_info(config, config["seed"], config["runtime"]["device"])
    facts["versions"]["optuna"] = import_optuna().__version__
    del facts["config_hash"], facts["seconds"]
    content = {
        "overrides": plan.overrides,
        "space": plan.space,
        "retention": plan.bound,
        "trials": {"wanted": plan.trials, "finished": len(rows), "failed": failed},
        **facts,
        "best": best,
        "closest": closest,
        "commands": commands,
        "front": on_front,
        "config": config,
    }
    write_json(folder / "search.json", content)
    if not rows:
        raise UserError(f"no trial gave numbers, so there is no front: {folder / 'search.json'} says why")
    title = f"{config['concept']['name']} · {config['granularity']['name']}: {len(rows)} edits"
    picture = folder / "pareto.png"
    with console.harmless("pareto.png"):
        pareto_front.draw(rows, on_front, best, plan.bound, plan.higher, picture, title)
    table = pareto_front.save_csv(rows, on_front, best, plan.bound, folder / "pareto.csv")
    columns = ["ratio", "scope", "estimator", *(name for name in ("factor", "objective") if name in plan.space)]
    screen = console.console()
    screen.print()
    screen.print(pareto_front.table(on_front, best, columns, plan.higher))
    if failed:
        console.say(f"{len(failed)} of {len(rows) + len(failed)} trials failed: search.json says why", style="yellow")
    console.say(verdict(plan, best, closest, len(rows)))
    console.say("\nThis edit, as an ordinary run with the same numbers:")
    console.say(f"  {commands['repeat']}")
    console.say("It was chosen on these images, which flatters it. Before you report it, on images it has not seen:")
    console.say(f"  {commands['evaluate']}")
    places = {"study": folder, "front": table, "picture": picture, "settings": folder / "search.json"}
    summary.show_places({what: place for what, place in places.items() if place.exists()})


def verdict(plan: Plan, best: dict[str, Any] | None, closest: dict[str, Any] | None, count: int) -> str:
    """Say in one sentence which trial is best under the constraint, or that none meets it and which comes closest."""
    row = best or closest or {}
    rate, kept = wording.number(row["concept_rate"]), wording.number(row["retention"])
    if best:
        return (
            f"best with retention of at least {plan.bound:g}: trial {row['trial']} (concept rate {rate}, kept {kept})"
        )
    text = f"none of {count} edits keeps {plan.bound:g}: trial {row['trial']} comes closest with {kept} "
    text += f"(concept rate {rate})"
    if row["unedited_retention"] < plan.bound:
        text += f"; the unedited model itself has only {wording.number(row['unedited_retention'])}: lower retention="
    return text


def main(arguments: list[str] | None = None, run: Run | None = None) -> int:
    """Run the command line; `run` replaces `experiment.run`. 0, 1 failed, 2 the command is wrong, 130 stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # OpenMP's threads spin while they wait, which halves the speed on small machines; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    process.begin()
    code = MISUSED
    try:
        plan, code = read(arguments), FAILED
        import_optuna()
        plan = narrow(plan)
        if run is None:
            preflight.check_cache(plan.config)
            from cad_exp.pipeline.run import run as ordinary

            run = ordinary
        report(plan, search(plan, run))
    except UserError as error:
        console.error(str(error))
        return code
    return 0
