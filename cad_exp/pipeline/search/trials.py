"""The trials of a search, one after the other: each is an ordinary run in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from cad_exp.config.resolve import resolve
from cad_exp.pipeline.search.plan import BRIEF, Plan, composed
from cad_exp.pipeline.search.study import Study, Trial
from cad_exp.reporting import run_folder, wording
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError, out_of_memory

HOPELESS = 3  # trials that fail before any succeeds: the command is at fault, not the edit
Run = Callable[[dict[str, Any], Path], dict[str, Any]]


def search(plan: Plan, run: Run) -> Study:
    """Run the trials that are missing, one at a time; a line for each. UserError if the first ones all fail."""
    config = plan.config
    if distributed.size() > 1:
        raise UserError("torchrun shares out one run, not a search: start the same command several times instead")
    study = Study(plan.folder, plan.space, plan.settings, plan.default(), config["seed"], plan.bound, plan.higher)
    most = plan.trials if study.most is None else min(plan.trials, study.most)
    names = f"{config['concept']['name']}, {config['granularity']['name']}, {config['model']['name']}"
    console.stage(f"search: {names}; {most} trials, retention of at least {plan.bound:g}")
    if study.most is not None and study.most < plan.trials:
        console.say(f"  the space holds {study.most} edits, so there are no more trials")
    done = len(study.finished()) + len(study.failed())
    console.say(f"  {done} of them are done already" if done else f"  each in {plan.folder / 'trials'}, with its log")
    seconds: list[float] = []
    while True:
        with study.claim(plan.trials) as trial:
            if trial is None:
                return study
            start = time.monotonic()
            line = attempt(plan, study, trial, run)
            seconds.append(time.monotonic() - start)
        finished, failed = study.finished(), study.failed()
        left = most - len(finished) - len(failed)
        rest = f", {console.duration(sum(seconds) / len(seconds) * left)} left" if left > 0 else ""
        console.say(f"  {most - left}/{most}  {line}  ({console.duration(seconds[-1])}{rest})")
        if not finished and len(failed) >= HOPELESS:
            raise UserError(
                f"the first {len(failed)} trials all failed, the last with: {failed[-1]['error']} "
                f"(mend it, delete {plan.folder} and start again)"
            )


def attempt(plan: Plan, study: Study, trial: Trial, run: Run) -> str:
    """Run one trial in a folder of its own, its words in log.txt; return its line for the terminal."""
    folder = plan.folder / "trials" / str(trial.number)
    shown = " ".join(f"{name}={value}" for name, value in trial.parameters.items())
    head = f"trial {trial.number}{' again' if trial.again else ''}: {shown}"
    start = time.monotonic()
    try:
        run_folder.claim(folder)  # a killed process may have begun it
        own = composed("config", [*BRIEF, *plan.arguments(trial.parameters)], plan.config_folders)
        config = resolve(own, plan.config_folders[1:])
        if config.get("tracking"):
            config["tracking"]["sweep"] = plan.folder.name
        with open(folder / "log.txt", "w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            metrics = run(config, folder)["metrics"]
        outcome = _outcome(metrics)
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else out_of_memory(error, plan.config)
        if said is None:
            raise
        study.fail(trial, said)
        return f"{head}: failed: {said}"
    study.finish(trial, {**outcome, "seconds": round(time.monotonic() - start, 1)})
    short = "" if outcome["retention"] >= plan.bound - 1e-9 else f", below {plan.bound:g}"
    rate, kept = wording.number(outcome["concept_rate"]), wording.number(outcome["retention"])
    return f"{head}: concept rate {rate}, retention {kept}{short}"


def _outcome(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Return both objectives with intervals for the edited model, and their values for the other two."""
    found = {(metric["name"], metric["variant"]): metric for metric in metrics}
    outcome = {}
    for name, key in (("concept_rate", "concept_rate"), ("retention_mean", "retention")):
        for prefix, variant in (("", "edited"), ("random_", "random"), ("unedited_", "unedited")):
            if (name, variant) not in found:
                raise UserError(f"the run measured no {name} of the {variant} model: check concept.kind and label")
            outcome[prefix + key] = float(found[name, variant]["value"])
        outcome |= {f"{key}_{end}": float(found[name, "edited"][end]) for end in ("low", "high")}
    return outcome
