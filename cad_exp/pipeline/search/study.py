"""A study: which parameters were tried with what outcome, in an Optuna journal that any number of processes may share.

What comes next depends on the seed and on the finished trials only, so a study that was stopped and continued tries
the same as one that was not. A trial is claimed by a lock that the operating system drops when its process dies:
whatever is still marked as running but not locked was killed, and is claimed again with the parameters it had.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cad_exp.config.effective import differences
from cad_exp.reporting import run_folder
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from filelock import FileLock

MARK = ".cad_exp-search"
Space = dict[str, tuple[float, float] | list[Any]]  # name -> (lowest, highest) on a logarithmic scale, or the values
Parameters = dict[str, Any]


@dataclass
class Trial:
    """A claimed trial: its number, its parameters, and whether a killed process had begun it before."""

    number: int
    parameters: Parameters
    again: bool
    source: Any  # Optuna's own trial


def rounded(value: float, low: float, high: float) -> float:
    """Round to three significant digits, so that a command can repeat it; never beyond the range."""
    return min(max(float(f"{value:.3g}"), low), high)


def queue(space: Space, default: Parameters) -> tuple[list[Parameters], int | None]:
    """Return what is tried first, and how many trials exist (None: endless).

    The default comes first where the space holds it, so that a search is never worse than an ordinary run.
    Where no range is searched, every combination follows.
    """
    held = all(
        values[0] <= (default[name] or 0) <= values[1] if isinstance(values, tuple) else default[name] in values
        for name, values in space.items()
    )
    first = {name: default[name] for name in space}
    if any(isinstance(values, tuple) for values in space.values()):
        return ([first] if held else []), None
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    return sorted(every, key=lambda parameters: parameters != first), len(every)


class Study:
    """The study in `folder`, created or continued. Two objectives: concept_rate (higher or lower), retention (higher).

    bound: the least retention, a constraint of the sampler (TPE). settings: JSON-able, what may not change within a
    study. UserError if Optuna is missing, the journal is damaged, or it was begun with other settings.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        settings: dict[str, Any],
        default: Parameters,
        seed: int,
        bound: float,
        higher: bool,
    ):
        optuna = import_optuna()
        from filelock import FileLock
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        self.folder, self.space, self.seed, self.bound = folder, space, seed, bound
        self.first, self.most = queue(space, default)
        run_folder.claim(folder, MARK, "folder")
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "study.lock")
        path = str(folder / "journal.log")
        with self._lock:
            try:
                storage = optuna.storages.JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
                directions = ["maximize" if higher else "minimize", "maximize"]
                self.optuna = optuna.create_study(
                    storage=storage, study_name="search", directions=directions, load_if_exists=True
                )
            except (ValueError, KeyError) as error:
                raise UserError(f"'{path}' is damaged ({error}): delete the folder '{folder}' to begin anew") from error
            begun = self.optuna.user_attrs.get("settings")
            if begun is None:
                self.optuna.set_user_attr("settings", settings)
        if begun not in (None, settings):
            key, old, new = differences(begun, settings)[0]
            raise UserError(
                f"'{folder}' holds a search with other settings ({key} was {old}, now {new}): give another folder="
            )

    @contextmanager
    def claim(self, total: int) -> Iterator[Trial | None]:
        """Yield the next trial, held until the block ends.

        Yields None when `total` are finished or in other processes' hands.
        """
        with self._lock:
            trial, lock = self._killed() or self._new(total) or (None, None)
        try:
            yield trial
        finally:
            if lock:
                lock.release()

    def finish(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """Record what a trial measured; `outcome` has at least concept_rate and retention."""
        trial.source.set_user_attr("outcome", outcome)
        if "retention" not in trial.source.constraints:  # a process killed right here has set it already
            trial.source.set_constraint("retention", self.bound - outcome["retention"])
        self.optuna.tell(trial.number, [outcome["concept_rate"], outcome["retention"]])

    def fail(self, trial: Trial, message: str) -> None:
        """Record that a trial could not be run; it is not tried again."""
        trial.source.set_user_attr("error", message)
        self.optuna.tell(trial.number, state=import_optuna().trial.TrialState.FAIL)

    def finished(self) -> list[dict[str, Any]]:
        """Return the outcomes of the completed trials, by number, with `trial` and the parameters."""
        return [
            {"trial": trial.number, **self._parameters(trial.params), **trial.user_attrs["outcome"]}
            for trial in self._trials("COMPLETE")
        ]

    def failed(self) -> list[dict[str, Any]]:
        """Return trial, parameters and error of the failed trials."""
        return [
            {"trial": trial.number, **self._parameters(trial.params), "error": trial.user_attrs.get("error")}
            for trial in self._trials("FAIL")
        ]

    def _trials(self, state: str) -> list[Any]:
        found: list[Any] = self.optuna.get_trials(deepcopy=False, states=(import_optuna().trial.TrialState[state],))
        return found

    def _parameters(self, drawn: Parameters) -> Parameters:
        return {
            name: rounded(drawn[name], *values) if isinstance(values, tuple) else drawn[name]
            for name, values in self.space.items()
        }

    def _held(self, number: int) -> FileLock | None:
        """Return the lock of a trial, or None if another process has it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / "trials" / f".{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _killed(self) -> tuple[Trial, FileLock] | None:
        optuna = import_optuna()
        for found in self._trials("RUNNING"):
            lock = self._held(found.number)
            if lock is None:
                continue
            if self.optuna.trials[found.number].state.is_finished():  # between the look and the lock
                lock.release()
                continue
            self.optuna.sampler = self._sampler(found.number)
            source = optuna.trial.Trial(self.optuna, found._trial_id)  # its drawn values are kept, missing ones drawn
            return Trial(found.number, self._draw(source), True, source), lock
        return None

    def _new(self, total: int) -> tuple[Trial, FileLock | None] | None:
        waiting = self._trials("WAITING")
        number = len(self.optuna.get_trials(deepcopy=False)) - len(waiting)
        if number >= (total if self.most is None else min(total, self.most)):
            return None
        if number < len(self.first) and not waiting:
            self.optuna.enqueue_trial(self.first[number])
        self.optuna.sampler = self._sampler(number)
        source = self.optuna.ask()
        lock = self._held(source.number)
        return Trial(source.number, self._draw(source), False, source), lock

    def _sampler(self, number: int) -> Any:
        """Make a sampler of its own for each trial: continued or not, a study draws the same."""
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        return import_optuna().samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def _draw(self, source: Any) -> Parameters:
        return self._parameters(
            {
                name: source.suggest_float(name, *values, log=True)
                if isinstance(values, tuple)
                else source.suggest_categorical(name, values)
                for name, values in self.space.items()
            }
        )


def import_optuna() -> Any:
    """Return the optuna module, quiet. UserError that says how to install it."""
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'cad-exp[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
