"""The optimiser, and how the learning rate goes."""

import math

import torch
from torch import Tensor, nn

from antiphon.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) in one fused pass; matrices decay, vectors and biases do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)


def learning_rate(config: TrainingConfig, step: int, progress: float) -> float:
    """The rate of update `step` (from 0), when a share `progress` (0 to 1) of the training is over."""
    warmth = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    elif config.schedule == "inverse_sqrt":
        decay = math.sqrt((config.warmup_steps + 1) / max(step + 1, config.warmup_steps + 1))
    else:
        decay = 1.0
    return config.learning_rate * warmth * decay


def clip_gradients(model: nn.Module, longest: float) -> Tensor:
    """Shortens the gradient to `longest` (0: leaves it) and returns its length before."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    length = torch.nn.utils.get_total_norm(gradients)
    if longest:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), longest, length)
    return length
