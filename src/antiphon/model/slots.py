"""Keys and values that never move, in slots that sources hold until they leave.

Of the past, a row's tokens lie along a path of slots: at each step its key and value are written into the slot that the
row holds at that moment, at its age, and the path remembers which. Searches that reorder, repeat or drop rows change
the paths alone. All rows of a source have the same age, and no two hold the same slot, so nothing is written twice. Of
the memory, each source has one slot.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

FEWEST = 128  # slots at the beginning: room that is not written to costs nothing
BLOCK = 64  # a slot grows by so many tokens at a time


class Slots:
    """Keys and values of all layers, in bfloat16, and which slots are free."""

    def __init__(self, num_layers: int, num_heads: int, head_width: int) -> None:
        # (2 x layers, P, C, H, K)
        self.cache = torch.empty(2 * num_layers, 0, 0, num_heads, head_width, dtype=torch.bfloat16)
        self.free: list[int] = []

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, each (P, C, H, K)."""
        return self.cache[2 * index], self.cache[2 * index + 1]

    def reserve(self, count: int, length: int) -> None:
        """Room for `count` more slots than are taken, and for so many tokens in each."""
        layers, had, room, heads, width = self.cache.shape
        missing = count - len(self.free)
        slots = had if missing <= 0 else max(had + missing, 2 * had, FEWEST)
        longer = max(-(-length // BLOCK) * BLOCK, room)
        if (slots, longer) != (had, room):
            cache = self.cache.new_empty(layers, slots, longer, heads, width)
            for taken in self._taken():
                cache[:, taken, :room] = self.cache[:, taken]
            self.cache = cache
            self.free = [*reversed(range(had, slots)), *self.free]  # the lowest are taken first

    def _taken(self) -> Iterator[slice]:
        """The slots that are not free: neighbours together."""
        first = 0
        for free in [*sorted(self.free), self.cache.shape[1]]:
            if first < free:
                yield slice(first, free)
            first = free + 1

    def take(self, count: int) -> list[int]:
        """So many free slots; there is room for them."""
        return [self.free.pop() for _ in range(count)]

    def copy(self, other: "Slots", slots: Sequence[int], length: int) -> dict[int, int]:
        """Takes over slots of others, so many tokens of each; where each slot lies now."""
        self.reserve(len(slots), length)
        place = dict(zip(slots, self.take(len(slots)), strict=True))
        for old, new in place.items():
            self.cache[:, new, :length] = other.cache[:, old, :length]
        return place


class PastSlots:
    """Of the past: for N rows of B sources, in the order of a DecodeState's."""

    def __init__(self, slots: Slots, num_rows: int) -> None:
        slots.reserve(num_rows, 1)
        self.slots = slots
        self.held = slots.take(num_rows)  # the slot that each row writes into
        self.owned = [[slot] for slot in self.held]  # the slots of each source
        self.paths = torch.empty(num_rows, 0, dtype=torch.long)  # (N, L): the slot of each token
        self.length = 0  # tokens of the oldest row, ever

    def advance(self, ages: Sequence[int]) -> None:
        """Makes room for each row's token at its age, and puts that on its path."""
        self.reserve(max(ages) + 1)
        self.paths.scatter_(1, torch.tensor(ages).unsqueeze(1), torch.tensor(self.held).unsqueeze(1))

    def reserve(self, length: int) -> None:
        """Makes room for so many tokens of each row."""
        self.length = length = max(self.length, length)
        self.slots.reserve(0, length)
        if self.paths.shape[1] < length:
            paths = self.paths.new_zeros(len(self.paths), self.slots.cache.shape[2])
            paths[:, : self.paths.shape[1]] = self.paths
            self.paths = paths

    def select(self, rows: Sequence[int], owner: Sequence[int], kept: Sequence[int]) -> None:
        """Row i goes on from today's row rows[i], for the source kept[owner[i]]."""
        stay = set(kept)
        self.slots.free += [slot for source, slots in enumerate(self.owned) if source not in stay for slot in slots]
        self.owned = [self.owned[source] for source in kept]
        self.paths = self.paths[torch.tensor(rows)]
        wanted = [0] * len(kept)
        ranks = []
        for source in owner:
            ranks.append(wanted[source])
            wanted[source] += 1
        missing = [max(0, count - len(slots)) for count, slots in zip(wanted, self.owned, strict=True)]
        self.slots.reserve(sum(missing), 0)
        for slots, count in zip(self.owned, missing, strict=True):
            slots += self.slots.take(count)
        self.held = [self.owned[source][rank] for source, rank in zip(owner, ranks, strict=True)]

    def join(self, other: "PastSlots") -> None:
        """Adds other rows, after these."""
        slots = [slot for slots in other.owned for slot in slots]
        if other.length:
            place = self.slots.copy(other.slots, slots, other.length)
        else:
            self.slots.reserve(len(slots), 0)
            place = dict(zip(slots, self.slots.take(len(slots)), strict=True))
        self.length = max(self.length, other.length)
        self.held += [place[slot] for slot in other.held]
        self.owned += [[place[slot] for slot in slots] for slots in other.owned]
        length = max(self.paths.shape[1], other.paths.shape[1])
        paths = self.paths.new_zeros(len(self.held), length)
        paths[: len(self.paths), : self.paths.shape[1]] = self.paths
        renamed = other.paths.clone().apply_(lambda slot: place.get(slot, 0))
        paths[len(self.paths) :, : other.paths.shape[1]] = renamed
        self.paths = paths


class MemorySlots:
    """Of the memory: for B sources, in the order of a DecodeState's."""

    def __init__(self, slots: Slots, num_sources: int, length: int) -> None:
        slots.reserve(num_sources, length)
        self.slots = slots
        self.places = slots.take(num_sources)  # the first ones: nobody has taken any yet
        self.length = length  # of the longest source, ever

    def write(self, index: int, keys: Tensor, values: Tensor) -> None:
        """Of layer `index`, keys and values (B, H, S, K), while these are its first sources."""
        for cache, new in zip(self.slots.layer(index), (keys, values), strict=True):
            cache[: len(new), : self.length] = new.transpose(1, 2)

    def select(self, kept: Sequence[int]) -> None:
        stay = set(kept)
        self.slots.free += [slot for source, slot in enumerate(self.places) if source not in stay]
        self.places = [self.places[source] for source in kept]

    def join(self, other: "MemorySlots") -> None:
        """Adds other sources, after these."""
        place = self.slots.copy(other.slots, other.places, other.length)
        self.length = max(self.length, other.length)
        self.places += [place[slot] for slot in other.places]


@dataclass
class KeyValues:
    """A transformer's keys and values: of the past, and of the memory."""

    past: PastSlots
    memory: MemorySlots

    def select(self, rows: Sequence[int], owner: Sequence[int], kept: Sequence[int]) -> Self:
        """As DecodeState's; row i is of the source kept[owner[i]]. Changes these slots themselves."""
        self.past.select(rows, owner, kept)
        self.memory.select(kept)
        return self

    def join(self, others: Iterable["KeyValues"]) -> Self:
        """As DecodeState's. Changes these slots themselves."""
        for other in others:
            self.past.join(other.past)
            self.memory.join(other.memory)
        return self
