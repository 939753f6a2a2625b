"""One model trained by several workers of Ray Train: rows of every step divided between them.

What a worker computes, and why all of them end with the same tables, is said in
:mod:`perso.models.ranks`; this file starts the workers, keeps checkpoints, and brings epochs and
the model to the caller. The workers talk by gloo, on GPUs by NCCL.

A worker that dies takes its group with it: Ray starts a new one, which goes on from the last
checkpoint. So does a second call with the same arguments after the caller itself was killed.

Measured (CPU seconds of a rank and epoch; a million pairs, 64 factors, one thread each; one rank
against two): ``softmax`` with 1,024 candidates drawn 6.7, 4.8; ``contrasted`` cosine with 8,192
drawn 11.9, 8.0; ``squared`` 3.5, 3.6. Starting a group of two took 31 s on two busy cores, and a
new one after a death 27 s. In time rather than CPU seconds, on cores that others used too and with
a checkpoint after each epoch, two workers were 0.6 and 1.1 times as fast as one process on 289,000
pairs (``tests/benchmarks/bench_data_parallel.py``). So one process is quicker for whatever trains
in a few minutes, and for ``squared`` always.
"""

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

import numpy as np
import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError
from ray.util.queue import Empty, Queue

from perso.data.prepared import Interactions
from perso.errors import ClusterError
from perso.models.factors import FactorModel
from perso.models.hybrid_config import HybridConfig
from perso.models.progress import OnEpoch, Progress, load_state, save_state
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData
from perso.spec import spec_hash, spec_to_dict

if TYPE_CHECKING:
    from perso.models.ranks import Ranks

_POLL_S: Final = 0.2
_LAST_EPOCH_S: Final = 60.0
"""For workers to end by themselves when their caller gives up."""
_FAILED: Final = (RayTaskError, WorkerCrashedError, OutOfMemoryError)


def fit_data_parallel(
    interactions: Interactions,
    config: SgdConfig | HybridConfig,
    side: SideData | None = None,
    *,
    num_workers: int,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    storage: Path,
    on_epoch: OnEpoch | None = None,
    checkpoint_every: int = 1,
    max_failures: int = 3,
) -> FactorModel:
    """Train one model by several workers; equal to one process's to rounding.

    Args:
        interactions: What to learn from; in the object store once, mapped by each worker.
        config: The family's settings.
        side: What else is known; of use to the hybrid.
        num_workers: Processes, each with all tables.
        cpus_per_worker: What Ray sets aside for each; a worker has as many threads, at least one.
        gpus_per_worker: What Ray sets aside for each, in whole ones: NCCL takes a GPU for one
            worker only. Above 0, tables are on the GPU unless the config says otherwise.
        storage: Folder that all nodes see. Checkpoints of this very training (data and settings)
            are below it until it has ended.
        on_epoch: Called here with each epoch and its loss, once; what it raises ends the training.
            There is neither model nor state: they are with the workers.
        checkpoint_every: Epochs from one checkpoint to the next.
        max_failures: How many times a dead worker may be replaced.

    Raises:
        ValueError: As :func:`perso.models.families.fit_model`, if a number is below 1, or if a
            GPU is to be shared.
        ClusterError: If workers failed more often than ``max_failures`` allows.
    """
    for name, value in (("num_workers", num_workers), ("checkpoint_every", checkpoint_every)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give 1 or more")
    if gpus_per_worker % 1:
        raise ValueError(
            f"gpus_per_worker is {gpus_per_worker}; workers that train one model take whole GPUs"
        )
    side = side or SideData()
    name = f"data_parallel-{_key_of(interactions, config, side)}"
    storage.mkdir(parents=True, exist_ok=True)
    epochs = Queue(actor_options={"num_cpus": 0})
    job = _Job(
        data=ray.put((interactions, side)),
        config=config,
        num_threads=max(1, int(cpus_per_worker)),
        checkpoint_every=checkpoint_every,
        epochs=epochs,
    )
    resources = {"CPU": cpus_per_worker, "GPU": gpus_per_worker}
    training = _run_workers.remote(
        job,
        num_workers=num_workers,
        resources={kind: amount for kind, amount in resources.items() if amount},
        max_failures=max_failures,
        name=name,
        storage=str(storage.resolve()),
    )
    try:
        _tell(epochs, training, on_epoch)
        try:
            ended: FactorModel | ValueError = ray.get(training)
        except _FAILED as error:
            raise ClusterError(
                f"{num_workers} workers that train one model failed more than {max_failures} "
                f"times; the last time: {_last_line(error)}; if memory ran out, give them less to "
                "hold: fewer num_factors, or larger nodes"
            ) from error
    except BaseException:
        epochs.shutdown(force=True)  # the workers notice at their next epoch
        if not ray.wait([training], timeout=_LAST_EPOCH_S)[0]:
            # Its process owns the workers, which end with it. What was set aside for them (Ray
            # Train's placement group) is given back when this job ends, no sooner.
            ray.cancel(training, force=True)
        raise
    finally:
        epochs.shutdown(force=True)
    shutil.rmtree(storage / name, ignore_errors=True)
    if isinstance(ended, ValueError):
        raise ended
    return ended


class _Job(TypedDict):
    """What every worker is told."""

    data: Any
    """Reference to interactions and side."""
    config: SgdConfig | HybridConfig
    num_threads: int
    checkpoint_every: int
    epochs: Queue
    """Where the first worker tells each epoch and its loss."""


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _run_workers(
    job: _Job,
    *,
    num_workers: int,
    resources: dict[str, float],
    max_failures: int,
    name: str,
    storage: str,
) -> FactorModel | ValueError:
    """Ray Train in a process of its own, so that the caller can end it and hears of epochs."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _train,
        train_loop_config=cast("dict[str, Any]", job),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if "GPU" in resources else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    return cast("FactorModel | ValueError", trainer.fit().return_value)


def _train(job: _Job) -> FactorModel | ValueError | None:
    """What a worker runs; the first one returns the model.

    A training that cannot be, or that diverged, is no reason for new workers: its error returns.
    """
    import torch
    from ray import train

    from perso.models.ranks import Ranks

    torch.set_num_threads(job["num_threads"])
    ranks = Ranks.of_process_group()
    is_first = ranks.rank == 0

    def on_epoch(progress: Progress) -> None:
        is_alone = torch.zeros(1)
        if is_first:
            try:
                job["epochs"].put((progress.epoch, progress.loss))
            except RayActorError:
                is_alone += 1
        ranks.sum_([is_alone])
        if is_alone.item():
            raise _NobodyWaits
        if progress.epoch % job["checkpoint_every"]:
            return
        assert progress.state is not None
        if not is_first:
            train.report({"epoch": progress.epoch})
            return
        with tempfile.TemporaryDirectory() as folder:
            save_state(Path(folder), progress.state())
            checkpoint = train.Checkpoint.from_directory(folder)
            train.report({"epoch": progress.epoch}, checkpoint=checkpoint)

    try:
        model = _fit(job, ranks, on_epoch)
    except ValueError as error:
        return error
    except _NobodyWaits:
        return None
    return model if is_first else None


class _NobodyWaits(Exception):  # noqa: N818 - no error, a way out
    """The caller has given up, and all ranks end after the same epoch."""


def _fit(job: _Job, ranks: "Ranks", on_epoch: OnEpoch) -> FactorModel:
    """Train on, from the last checkpoint if there is one."""
    from ray import train

    from perso.models.hybrid import fit_hybrid
    from perso.models.sgd import fit_sgd

    resume = None
    if (checkpoint := train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            resume = load_state(Path(folder))
    interactions, side = ray.get(job["data"])
    config = job["config"]
    if isinstance(config, HybridConfig):
        return fit_hybrid(interactions, side, config, on_epoch=on_epoch, resume=resume, ranks=ranks)
    return fit_sgd(interactions, config, on_epoch=on_epoch, resume=resume, ranks=ranks)


def _tell(epochs: Queue, training: Any, on_epoch: OnEpoch | None) -> None:
    """Call back with each epoch until the training is over, one time if it was run again."""
    last, is_over = 0, False
    while not is_over:
        is_over = bool(ray.wait([training], timeout=0)[0])  # what comes after it has been told
        with contextlib.suppress(Empty):
            while True:
                epoch, loss = epochs.get(timeout=_POLL_S)
                if epoch > last and on_epoch is not None:
                    on_epoch(Progress(epoch=epoch, loss=loss, model=None, state=None))
                last = max(last, epoch)


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[-1]


def _key_of(interactions: Interactions, config: SgdConfig | HybridConfig, side: SideData) -> str:
    """Names a training by all that it learns from: another one's checkpoints are not taken up."""
    digest = hashlib.blake2b(digest_size=8)
    codes = [interactions.context_codes[name] for name in sorted(interactions.context_codes)]
    pairs = (interactions.user_indices, interactions.item_indices)
    for array in (*pairs, interactions.weights, interactions.ratings, *codes):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return spec_hash(spec_to_dict(config), digest.hexdigest(), side.fingerprint)
