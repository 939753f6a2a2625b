"""How far a search is: one moving line on a terminal, a plain line per trial otherwise."""

import logging
import math
import sys
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial
from perso.tuning.wording import in_words

logger = logging.getLogger(__name__)


class SearchProgress:
    """Told when trials begin and end; a context, because a terminal has to be put back."""

    def __init__(self, spec: SearchSpec, known: Sequence[Trial]) -> None:
        """Begin where an earlier attempt ended."""
        self._spec = spec
        self._running: set[int] = set()
        self._ended = {trial.number for trial in known if trial.status != "running"}
        self._best: Trial | None = None
        for trial in known:
            self._look_at(trial)
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[told]}", markup=False),  # settings may have brackets
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                spec.name, total=spec.num_trials, completed=len(self._ended), told=self._told
            )

    def __enter__(self) -> "SearchProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, number: int) -> None:
        """A trial runs, for the first time or again."""
        self._running.add(number)
        self._refresh()

    def end(self, trial: Trial) -> None:
        """A trial is over."""
        self._running.discard(trial.number)
        self._ended.add(trial.number)
        self._look_at(trial)
        self._refresh()
        if self._bar is None:
            stopped = f", stopped at epoch {trial.epochs}" if trial.status == "stopped" else ""
            logger.info(
                "search: trial %d of %d, %s: %s%s (%.1f s)",
                len(self._ended),
                self._spec.num_trials,
                in_words(trial.settings),
                trial.error or f"{self._spec.goal.name} {trial.value(self._spec):.4f}",
                stopped,
                trial.train_s + trial.evaluate_s,
            )

    def _look_at(self, trial: Trial) -> None:
        value = trial.value(self._spec)
        sign = self._spec.goal.sign
        if not math.isnan(value) and (
            self._best is None or sign * value > sign * self._best.value(self._spec)
        ):
            self._best = trial

    @property
    def _told(self) -> str:
        running = f"{len(self._running)} running"
        if self._best is None:
            return running
        value = self._best.value(self._spec)
        return f"{running}; best {value:.4f} {in_words(self._best.settings)}"

    def _refresh(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=len(self._ended), told=self._told)
