"""Reaching a Ray cluster, or starting one on this machine."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from perso.errors import ClusterError, PersoError

logger = logging.getLogger(__name__)

_TRIES = 3


def connect(address: str | None = None) -> None:
    """Connect this process to Ray; a second call is free.

    Without an address (and without ``RAY_ADDRESS``, which a submitted job has) a private cluster
    starts on this machine and ends with this process.

    Raises:
        ClusterError: If no cluster could be reached or started.
    """
    import ray

    if ray.is_initialized():
        return
    # Ray says at every start that its cluster asks for a token; it is meant to.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    address = address or os.environ.get("RAY_ADDRESS")
    for attempt in range(1, _TRIES + 1):
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (ConnectionError, RuntimeError, OSError, TimeoutError, ValueError) as error:
            # A loaded machine can miss Ray's start-up deadline; the next try usually makes it.
            logger.warning("Ray did not start (try %d of %d): %s", attempt, _TRIES, error)
            ray.shutdown()
            if attempt == _TRIES:
                place = f"reach the Ray cluster at {address}" if address else "start Ray here"
                raise ClusterError(f"could not {place}: {error}") from error
            time.sleep(attempt)
        else:
            _configure_data()
            return


def _configure_data() -> None:
    from ray.data import DataContext
    from ray.data.context import ShuffleStrategy

    # The default starts a pool of actors for each shuffle: 5 to 14 s before the first row on two
    # cores, and no quicker than sorting at three million rows.
    DataContext.get_current().shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    # Its own lines tell of operators and blocks; each stage here logs one line of its own.
    DataContext.get_current().print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise the PersoError inside Ray's wrapping of a worker's exception, where there is one."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        # Ray's wrapper of a PersoError is one too, with a worker's traceback for its text.
        while cause is not None and (hasattr(cause, "cause") or not isinstance(cause, PersoError)):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            raise
        raise cause from None
