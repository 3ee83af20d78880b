"""Whole stacks of packed layers in one call, without Python's lock: where their weights lie, and what a step is told.

The structures are those of stack.cpp, field by field. Tensors that they point to must stay where they are.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from antiphon.kernels import library

POINTER, SIZE, NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Norm(ctypes.Structure):
    _fields_ = (("weight", POINTER), ("bias", POINTER), ("eps", NUMBER))


class Linear(ctypes.Structure):
    _fields_ = (("weights", POINTER), ("scales", POINTER), ("zeros", POINTER), ("bias", POINTER), ("outputs", SIZE))


class Layer(ctypes.Structure):
    """What an architecture does not have is left empty."""

    _fields_ = (
        *(("attention_norm", Norm), ("project", Linear), ("output", Linear)),
        *(("cross_norm", Norm), ("query", Linear), ("memory", Linear), ("cross_output", Linear)),
        *(("feed_forward_norm", Norm), ("inner", Linear), ("outer", Linear), ("gated", SIZE)),
    )


class Stack(ctypes.Structure):
    _fields_ = (
        *(("width", SIZE), ("heads", SIZE), ("count", SIZE), ("layers", ctypes.POINTER(Layer))),
        *(("norm", Norm), ("embedding", POINTER), ("factor", NUMBER), ("head", Linear)),
    )


class Positions(ctypes.Structure):
    """Of positions 0 ... length - 1: waves (L, D), cosines and sines (L, K / 2), bias (H, L) of the last one's keys."""

    _fields_ = (("waves", POINTER), ("cos", POINTER), ("sin", POINTER), ("bias", POINTER), ("length", SIZE))


class Cache(ctypes.Structure):
    _fields_ = (("numbers", POINTER), ("slots", SIZE), ("capacity", SIZE))


def cache(x: Tensor) -> Cache:
    """x (2 x layers, P, C, H, K), bfloat16."""
    return Cache(x.data_ptr(), x.shape[1], x.shape[2])


def step_decoder(
    stack: Stack,
    positions: Positions,
    rows: tuple[Tensor, Tensor, Tensor],
    paths: Tensor,
    caches: tuple[Tensor, Tensor],
    memory_of_rows: tuple[Tensor, Tensor],
    cells: Sequence[Tensor],
) -> Tensor:
    """One token a row through a decoder -> logits (N, V).

    rows: tokens, ages and the slots that are written into, each (N,), which are put on the paths (N, L). caches: of the
    past and of the memory. memory_of_rows: slots and lengths, each (N,). cells: of each layer (N, D), or none.
    """
    tokens, ages, held = rows
    logits = torch.empty(len(tokens), stack.head.outputs)
    of_layers = (POINTER * len(cells))(*(cell.data_ptr() for cell in cells)) if cells else None
    _call().step_decoder(
        *(ctypes.addressof(stack), ctypes.addressof(positions), len(tokens)),
        *(tokens.data_ptr(), ages.data_ptr(), held.data_ptr(), paths.data_ptr(), paths.shape[1]),
        *(ctypes.byref(cache(part)) for part in caches),
        *(part.data_ptr() for part in memory_of_rows),
        *(of_layers, logits.data_ptr()),
    )
    return logits


def encode(stack: Stack, positions: Positions, source: Tensor, lengths: Tensor, bias: Tensor | None) -> Tensor:
    """source (B, S) ids, lengths (B,), bias (H, S, S) -> values (B, S, D), zero on padding."""
    values = torch.zeros(*source.shape, stack.width)
    _call().encode(
        *(ctypes.addressof(stack), ctypes.addressof(positions), *source.shape, source.data_ptr()),
        *(lengths.data_ptr(), None if bias is None else bias.data_ptr(), values.data_ptr()),
    )
    return values


def keep_memory(stack: Stack, values: Tensor, lengths: Tensor, slots: Tensor, memory: Tensor) -> None:
    """values (B, S, D), lengths and slots (B,): all layers' keys and values of real tokens are put into a cache."""
    places = (values.data_ptr(), lengths.data_ptr(), slots.data_ptr(), ctypes.byref(cache(memory)))
    _call().keep_memory(ctypes.addressof(stack), *values.shape[:2], *places)


def _call() -> Any:
    return library()
