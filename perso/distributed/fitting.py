"""Which way a search trains one model: in the trial's own process, or by several together."""

from dataclasses import dataclass
from pathlib import Path

from perso.data.prepared import Interactions
from perso.models.als_config import AlsConfig
from perso.models.families import OneOfTheConfigs, fit_model
from perso.models.hybrid_config import HybridConfig
from perso.models.progress import OnEpoch, TrainingState
from perso.models.protocol import Recommender
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData
from perso.tuning.spec import SearchSpec


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Called as :func:`perso.models.families.fit_model`."""

    num_workers: int
    """Processes that train one model; 1: this one."""
    cpus_per_worker: float
    gpus_per_worker: float
    max_failures: int
    """How often workers that train together may be lost."""
    storage: Path
    """Where processes that share a training keep their checkpoints; every node sees it."""

    @classmethod
    def of(cls, spec: SearchSpec, storage: Path) -> "Fitting":
        """As a search asks."""
        return cls(
            num_workers=spec.workers_per_trial,
            cpus_per_worker=spec.cpus_per_trial,
            gpus_per_worker=spec.gpus_per_trial,
            max_failures=spec.retries,
            storage=storage,
        )

    def __call__(
        self,
        interactions: Interactions,
        config: OneOfTheConfigs,
        side: SideData | None = None,
        *,
        on_epoch: OnEpoch | None = None,
        resume: TrainingState | None = None,
    ) -> Recommender:
        """Train a model; several workers go on from their own checkpoints, not from ``resume``."""
        if self.num_workers == 1:
            return fit_model(interactions, config, side, on_epoch=on_epoch, resume=resume)
        if isinstance(config, AlsConfig):
            from perso.distributed.sharded_als import fit_als_sharded

            return fit_als_sharded(
                interactions,
                config,
                num_shards=self.num_workers,
                cpus_per_shard=self.cpus_per_worker,
                checkpoint_folder=self.storage / "als",
                on_epoch=on_epoch,
            )
        assert isinstance(config, SgdConfig | HybridConfig), config
        from perso.distributed.data_parallel import fit_data_parallel

        return fit_data_parallel(
            interactions,
            config,
            side,
            num_workers=self.num_workers,
            cpus_per_worker=self.cpus_per_worker,
            gpus_per_worker=self.gpus_per_worker,
            max_failures=self.max_failures,
            storage=self.storage,
            on_epoch=on_epoch,
        )
