"""Hugging Face's transformers as a contender: Marian in a plain training loop, and `generate` with exported weights.

Run by training.py, translation.py and cold_start.py with the interpreter that peers.py installed for it.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
import torch.nn.functional as F
from tasks import BOS, EOS, PAD, Ids, contend, groups_by_length, num_tokens, padded, read_batches, read_sentences
from tasks import translate_in_turns as in_turns
from torch import Tensor
from transformers import M2M100ForConditionalGeneration, MarianConfig, MarianMTModel
from transformers.utils.logging import disable_progress_bar
from turns import Turns

BATCH = 64  # sentences that `generate` is given at once


def marian(spec: dict[str, Any]) -> MarianMTModel:
    """With random weights, of the size asked for; its own dropout: none on attention weights."""
    shape = {f"{side}_{part}": spec[part] for side in ("encoder", "decoder") for part in ("layers", "attention_heads")}
    config = MarianConfig(
        vocab_size=spec["vocabulary"],
        d_model=spec["width"],
        encoder_ffn_dim=spec["inner_width"],
        decoder_ffn_dim=spec["inner_width"],
        dropout=spec["dropout"],
        scale_embedding=True,
        init_std=spec["width"] ** -0.5,
        pad_token_id=PAD,
        eos_token_id=EOS,
        forced_eos_token_id=EOS,
        decoder_start_token_id=BOS,
        attn_implementation=spec["attention"],
        **shape,
    )
    torch.manual_seed(1)
    return MarianMTModel(config)


def tensors(source: Ids, target: Ids) -> tuple[Tensor, Tensor, Tensor]:
    """source (B, S), target_in (B, T), target_out (B, T)."""
    shifted = [[BOS, *ids[:-1]] for ids in target]
    return tuple(torch.tensor(padded(rows)) for rows in (source, shifted, target))  # type: ignore[return-value]


def train(spec: dict[str, Any], turns: Turns) -> None:
    batches = [(*tensors(source, target), num_tokens(target)) for source, target in read_batches(spec["batches"])]
    model = marian(spec).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    steps = cycle(batches)
    while turns.wanted():
        source, target_in, target_out, num_target = next(steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=spec["precision"] == "bfloat16"):
            logits = model(
                input_ids=source, attention_mask=(source != PAD).long(), decoder_input_ids=target_in, use_cache=False
            ).logits
            loss = F.cross_entropy(
                logits.flatten(0, 1), target_out.flatten(), ignore_index=PAD, label_smoothing=spec["label_smoothing"]
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        turns.count(tokens=num_target)


def load(spec: dict[str, Any]) -> M2M100ForConditionalGeneration:
    disable_progress_bar()
    dtype = getattr(torch, spec["precision"])
    return M2M100ForConditionalGeneration.from_pretrained(spec["model"], dtype=dtype).eval()


@torch.inference_mode()
def generate(model: M2M100ForConditionalGeneration, spec: dict[str, Any], sources: Ids) -> Ids:
    """Sources with EOS -> outputs without."""
    source = torch.tensor(padded(sources))
    found = model.generate(
        input_ids=source,
        attention_mask=(source != PAD).long(),
        num_beams=spec["beam"],
        do_sample=False,
        length_penalty=spec["length_penalty"],
        suppress_tokens=None,
        max_new_tokens=spec["max_length"],
    )
    rows = [row[1:] for row in found.tolist()]  # they begin with BOS
    return [row[: row.index(EOS)] if EOS in row else row for row in rows]


def translate(spec: dict[str, Any], turns: Turns) -> None:
    """In this process, or in spec["workers"] of one thread each, which load the model for themselves."""
    sources = read_sentences(spec["sentences"])
    if spec["workers"] == 1:
        _start(spec)
        in_turns(spec, turns, sources, lambda asked: batched(map, asked))
        return
    context = get_context("spawn")
    loaded = context.Barrier(spec["workers"] + 1)
    with context.Pool(spec["workers"], _start_worker, (spec, loaded)) as pool:
        loaded.wait()
        in_turns(spec, turns, sources, lambda asked: batched(pool.imap, asked))


def _start(spec: dict[str, Any]) -> None:
    global _generate
    _generate = partial(generate, load(spec), spec)


def _start_worker(spec: dict[str, Any], loaded: Barrier) -> None:
    torch.set_num_threads(1)
    _start(spec)
    loaded.wait()


def _generated(sources: Ids) -> Ids:
    return _generate(sources)


def batched(mapped: Callable[..., Iterable[Ids]], sources: Sequence[list[int]]) -> Ids:
    """Batches of like lengths, the longest first; results in the order of the sources."""
    groups = groups_by_length(sources, BATCH)
    found: dict[int, list[int]] = {}
    for group, outputs in zip(
        groups, mapped(_generated, [[sources[i] for i in group] for group in groups]), strict=True
    ):
        found.update(zip(group, outputs, strict=True))
    return [found[index] for index in range(len(sources))]


if __name__ == "__main__":
    contend({"train": train, "translate": translate})
