"""Encoded pairs and the batches made of them: ids only, no files and no text.

Batches hold pairs of like lengths, up to a budget of tokens, in an order that depends on the seed, the epoch and
nothing else; so a place in the data is two numbers, and a run can be taken up there again. Ids are in temporary files
that are mapped into memory: what stays there is their lengths and places, some 30 bytes a pair.
"""

import hashlib
import mmap
from array import array
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import tee
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from antiphon.data.pairs import ChosenPairs, Pair, temporary_file
from antiphon.ids import BOS, EOS, PAD
from antiphon.tokenizer import TokenizerPair

Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]
POOL = 1 << 17  # pairs that are sorted by length together
UNWRITTEN = 1 << 16  # ids that go into a file together


class Batch(NamedTuple):
    """Pairs side by side. Padding is PAD, at the end.

    source (B, S) ends with EOS. target_in (B, T) = GO + target, target_out (B, T) = target + EOS.
    """

    source: Tensor
    target_in: Tensor
    target_out: Tensor

    @property
    def source_mask(self) -> Tensor:
        """(B, S), True = a real token."""
        return self.source != PAD

    @property
    def num_target_tokens(self) -> int:
        return int((self.target_out != PAD).sum())

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(part.to(device) for part in self))

    def parts(self, tokens: int) -> "list[Batch]":
        """Its rows in parts as even as can be, of at most so many tokens on the longer side, padding included."""
        rows = max(1, tokens // max(self.source.shape[1], self.target_in.shape[1]))
        count = -(-len(self.source) // rows)
        return [Batch(*part) for part in zip(*(side.tensor_split(count) for side in self), strict=True)]


class Ragged:
    """Many lists of ids, one after the other in a temporary file, gone when they are; all are added before one is read.

    Lengths count EOS, which ends each.
    """

    def __init__(self, lists: Iterable[list[int]] = ()) -> None:
        self._file = temporary_file(self)
        self._lengths, self._unwritten = array("i"), array("i")
        for ids in lists:
            self.append(ids)

    def append(self, ids: list[int]) -> None:
        self._lengths.append(len(ids) + 1)
        self._unwritten.fromlist(ids)
        self._unwritten.append(EOS)
        if len(self._unwritten) > UNWRITTEN:
            self._file.write(self._unwritten)
            del self._unwritten[:]

    @cached_property
    def lengths(self) -> Ints32:
        """(N,)"""
        return np.asarray(self._lengths, dtype=np.int32)

    @cached_property
    def starts(self) -> Ints:
        """(N,), places in `ids`."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    @cached_property
    def ids(self) -> Ints32:
        """(sum of the lengths,)"""
        if not len(self.lengths):
            return np.zeros(0, dtype=np.int32)
        with self._file as file:
            file.write(self._unwritten)
            file.rollover()
            file.flush()
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.int32)

    def __getitem__(self, index: int) -> list[int]:
        start = self.starts[index]
        found: list[int] = self.ids[start : start + self.lengths[index]].tolist()
        return found

    def padded(self, indices: Ints) -> Tensor:
        """(B, longest), PAD at the end."""
        lengths = self.lengths[indices]
        places = np.arange(lengths.max())
        inside = places < lengths[:, None]
        grid = np.where(inside, self.starts[indices][:, None] + places, 0)
        return torch.from_numpy(np.where(inside, self.ids[grid], PAD).astype(np.int64))


class EncodedPairs:
    """A set of pairs as ids, and what was left out of it."""

    def __init__(self, pairs: Collection[Pair], tokenizers: TokenizerPair, max_length: int) -> None:
        """Leaves out pairs with an empty side, or with more than `max_length` tokens on one, and counts them."""
        self.sources, self.targets = Ragged(), Ragged()
        self.num_empty = 0
        kept = bytearray()
        first, second, third = tee(pairs, 3)
        sources = tokenizers.source.encode_batch(pair.source for pair in first)
        targets = tokenizers.target.encode_batch(pair.target for pair in second)
        for pair, source, target in zip(third, sources, targets, strict=True):
            is_full = bool(pair.source.strip() and pair.target.strip())
            self.num_empty += not is_full
            kept.append(is_full and 0 < len(source) <= max_length and 0 < len(target) <= max_length)
            if kept[-1]:
                self.sources.append(source)
                self.targets.append(target)
        self.num_too_long = len(kept) - self.num_empty - len(self)
        self.pairs = ChosenPairs(pairs, np.asarray(kept, dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.sources.lengths)

    def fingerprint(self) -> str:
        """A hash of all ids in order: the same data gives the same."""
        digest = hashlib.blake2b(self.sources.ids.data, digest_size=16)
        digest.update(self.targets.ids.data)
        digest.update(self.sources.lengths.astype(np.int64).data)
        return digest.hexdigest()

    def batch(self, indices: Ints) -> Batch:
        target_out = self.targets.padded(indices)
        target_in = torch.cat([torch.full((len(indices), 1), BOS), target_out[:, :-1]], dim=1)
        target_in[target_in == EOS] = PAD
        return Batch(self.sources.padded(indices), target_in, target_out)

    def order(self, batch_tokens: int, seed: int, epoch: int) -> Iterator[Ints]:
        """The batches of an epoch, as indices: at most `batch_tokens` tokens on the longer side, padding included."""
        generator = np.random.Generator(np.random.PCG64([seed, epoch]))
        shuffled = generator.permutation(len(self))
        for start in range(0, len(shuffled), POOL):
            pool = shuffled[start : start + POOL]
            pool = pool[np.lexsort((self.sources.lengths[pool], self.targets.lengths[pool]))]
            cuts = _cuts(np.maximum(self.sources.lengths[pool], self.targets.lengths[pool]), batch_tokens)
            batches = np.split(pool, cuts)
            for index in generator.permutation(len(batches)):
                yield batches[index]

    def batches(self, batch_tokens: int, seed: int, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without the first `skip`."""
        for index, indices in enumerate(self.order(batch_tokens, seed, epoch)):
            if index >= skip:
                yield self.batch(indices)

    def in_order(self, batch_tokens: int) -> Iterator[Ints]:
        """All pairs once, sorted by length and nothing random: for measuring."""
        order = np.lexsort((self.sources.lengths, self.targets.lengths))
        cuts = _cuts(np.maximum(self.sources.lengths[order], self.targets.lengths[order]), batch_tokens)
        yield from np.split(order, cuts)


def _cuts(lengths: Ints32, batch_tokens: int) -> list[int]:
    """Where to cut a sequence of pairs, so that the number in a piece times its longest stays within `batch_tokens`."""
    cuts = []
    count = longest = 0
    for index, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        count += 1
        if count > 1 and count * longest > batch_tokens:
            cuts.append(index)
            count, longest = 1, length
    return cuts


def padding_share(data: EncodedPairs, batch_tokens: int) -> float:
    """The share of padding in the batches of an epoch, both sides together."""
    padded = 0
    for indices in data.order(batch_tokens, seed=0, epoch=0):
        padded += len(indices) * int(data.sources.lengths[indices].max() + data.targets.lengths[indices].max())
    real = int(data.sources.lengths.sum() + data.targets.lengths.sum())
    return 1 - real / padded
