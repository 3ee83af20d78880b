"""Dropout whose random numbers cost little on a processor.

The framework's own generator draws one number an element, on one thread, and takes a quarter of a training step. Here
one byte an element comes from SFC64 (numpy), some thirty times faster; so the probability is rounded to 1/256. All
layers of a model share one `Noise`, whose state a checkpoint keeps; on a GPU it seeds the GPU's own generator.
"""

import json

import numpy as np
import torch
from torch import Tensor, nn


class Noise:
    """A stream of random bytes that can be stored and taken up again."""

    def __init__(self, seed: int = 0) -> None:
        self._bits = np.random.SFC64(seed)

    def draw(self, count: int) -> Tensor:
        """(count,) random bytes."""
        words = self._bits.random_raw((count + 7) // 8)
        return torch.from_numpy(words.view(np.uint8)[:count])

    def state(self) -> str:
        """The place in the stream, as JSON."""
        return json.dumps(self._bits.state, default=lambda array: [int(word) for word in array])

    def restore(self, text: str) -> None:
        """Goes to a place that `state` gave."""
        state = json.loads(text)
        state["state"]["state"] = np.array(state["state"]["state"], dtype=np.uint64)
        self._bits.state = state


class Dropout(nn.Module):
    """Sets elements to zero with probability `p` while training, and scales the others to keep the mean."""

    def __init__(self, p: float, noise: Noise) -> None:
        super().__init__()
        self.p = p
        self.noise = noise
        self.threshold = round(p * 256)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        if not self.training or self.threshold == 0:
            return x
        if x.is_cuda:
            seed = int.from_bytes(self.noise.draw(4).numpy().tobytes(), "little")
            kept = torch.rand(x.shape, device=x.device, generator=torch.Generator(x.device).manual_seed(seed)) >= self.p
            return x * kept.to(x.dtype).mul_(1 / (1 - self.p))
        kept = self.noise.draw(x.numel()).view(x.shape) >= self.threshold
        return x * kept.to(x.dtype).mul_(256 / (256 - self.threshold))
