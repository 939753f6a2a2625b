"""The best items of user and item vectors on a GPU: the lists of :mod:`perso.models.top_k`.

Vectors and lists stay on the device, the host only sends work. Scores are float32 products unless
PyTorch was told to allow TF32. Device memory: the vectors, and one block of scores of a quarter
GiB with half as much again to select from it.
"""

# B users of one block, I items, D factors, K list length, C items of one chunk, N chunks

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from perso.models.left_out import LeftOut

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_BYTES: Final = 256 << 20
_CHUNK: Final = 64
_LOW_BITS: Final = 0xFFFFFFFF


def select_on_device(
    user_BD: NDArray[np.float32],
    item_ID: NDArray[np.float32],
    bias_I: NDArray[np.float32],
    k: int,
    left_out: LeftOut,
    *,
    device: str,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Lists of ``user · item + bias``, as :func:`perso.models.top_k.top_k_factors` gives them.

    Raises:
        ValueError: If ``k`` is below 1.
        RuntimeError: If PyTorch has no such device.
    """
    import torch

    indices_BK, best_BK = left_out.empty_lists(k)
    num_users, num_items = len(user_BD), len(item_ID)
    if not (num_users and num_items):
        return indices_BK, best_BK
    width = min(k, num_items)
    num_chunks = -(-num_items // _CHUNK)
    user_UD, items_DI, biases_I = (
        torch.from_numpy(np.array(array, np.float32)).to(device)  # a copy: sources may be read-only
        for array in (user_BD, item_ID.T, bias_I)
    )
    starts = torch.from_numpy(left_out.seen_indptr_B1.copy()).to(device)
    seen = torch.from_numpy(left_out.seen_indices.astype(np.int64)).to(device)
    rows = torch.repeat_interleave(
        torch.arange(num_users, device=device), starts.diff(), output_size=len(seen)
    )
    found = torch.empty((num_users, width), dtype=torch.int64, device=device)
    best = torch.empty((num_users, width), device=device)
    height = max(1, _BLOCK_BYTES // (4 * num_chunks * _CHUNK))
    scores_BI = torch.full((min(height, num_users), num_chunks * _CHUNK), -torch.inf, device=device)
    for start in range(0, num_users, height):
        end = min(start + height, num_users)
        part_BI = scores_BI[: end - start]
        torch.addmm(biases_I, user_UD[start:end], items_DI, out=part_BI[:, :num_items])
        inside = slice(left_out.seen_indptr_B1[start], left_out.seen_indptr_B1[end])
        part_BI[rows[inside] - start, seen[inside]] = -torch.inf
        part_BI.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        found[start:end], best[start:end] = _best(part_BI, width)
    found[best == -torch.inf] = -1
    indices_BK[:, :width], best_BK[:, :width] = found.cpu().numpy(), best.cpu().numpy()
    return indices_BK, best_BK


def _best(scores_BI: "Tensor", k: int) -> tuple["Tensor", "Tensor"]:
    """The best items, looked for in the ``k`` chunks with the highest maxima, which hold them.

    An item outside these chunks has in each of them one that is better, or as good and earlier.
    """
    import torch

    chunks_BNC = scores_BI.view(len(scores_BI), -1, _CHUNK)
    num_chunks = chunks_BNC.shape[1]
    k_chunks = min(k, num_chunks)
    places_N = torch.arange(num_chunks, device=scores_BI.device)
    picked_BK = _keys(chunks_BNC.amax(2), places_N).topk(k_chunks, 1, sorted=False).indices
    candidates_BKC = chunks_BNC.gather(1, picked_BK[:, :, None].expand(-1, -1, _CHUNK))
    items_BKC = picked_BK[:, :, None] * _CHUNK + torch.arange(_CHUNK, device=scores_BI.device)
    keys = _keys(candidates_BKC.flatten(1), items_BKC.flatten(1)).topk(k, 1).values
    found_BK = _LOW_BITS - (keys & _LOW_BITS)
    return found_BK, scores_BI.gather(1, found_BK)


def _keys(scores: "Tensor", places: "Tensor") -> "Tensor":
    """Whole numbers in the order of (score, then lower place first), int64.

    Without ties among them, ``topk`` has one answer; of equal scores it takes any.
    """
    import torch

    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0, which it equals
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats order backwards by their bits
    return (ordered.long() << 32) | (_LOW_BITS - places)
