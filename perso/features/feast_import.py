"""``import feast`` at a quarter of its price.

Feast decorates its classes with typeguard's run-time type checks, which rewrite every function at
import (5 to 7 s of CPU), and imports torch where it is installed (1.5 s, 180 MB) only to offer
``OnlineResponse.to_tensor``. A replica that answers one look-up needs neither.
"""

import sys
import threading
from types import ModuleType
from typing import Any

_lock = threading.Lock()


def import_feast() -> ModuleType:
    """Feast, imported without run-time type checks and without torch.

    Only the first import in a process can be cheap: where Feast is already loaded, it is returned
    as it is. While the import runs (about 2 s) no other thread may import torch for the first
    time, so call this at the start of a process. ``import torch`` works afterwards.

    References:
        feast-dev/feast-workshop#23, agronholm/typeguard#468. Goes when Feast drops typeguard.
    """
    with _lock:
        if "feast" not in sys.modules:
            _import_cheaply()
        import feast

        module: ModuleType = feast
        return module


def _import_cheaply() -> None:
    import typeguard

    def unchecked(target: Any = None, **_options: Any) -> Any:
        return target if target is not None else lambda function: function

    real = typeguard.typechecked
    hides_torch = "torch" not in sys.modules
    typeguard.typechecked = unchecked  # type: ignore[assignment]
    if hides_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]  # feast.torch_wrapper copes
    try:
        import feast  # noqa: F401
    finally:
        typeguard.typechecked = real
        if hides_torch:
            del sys.modules["torch"]
