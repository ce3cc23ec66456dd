"""The learning rate over a run: AdamW whose rate rises for a while and then falls along half a cosine."""

import math
from collections.abc import Sequence

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import ParamsT

Optimizer = tuple[AdamW, LambdaLR]


def warm_cosine(groups: Sequence[dict[str, object]], steps: int, warmup: float, decay: float) -> Optimizer:
    """AdamW over `groups` (each with its peak "lr") and its schedule, for `steps` steps.

    `warmup`: share of the steps in which the rate rises linearly; then it falls to 0 along half a cosine (Loshchilov
    and Hutter 2017, arXiv 1608.03983). `decay`: AdamW's weight decay.
    """
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    params: ParamsT = list(groups)
    # On a GPU one kernel for all weights: AdamW's own choice would wait for it once for each of them.
    fused = True if torch.get_default_device().type == "cuda" else None
    optimizer = AdamW(params, weight_decay=decay, fused=fused)
    return optimizer, LambdaLR(optimizer, factor)
