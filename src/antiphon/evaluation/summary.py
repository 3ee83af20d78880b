"""What a run folder holds, in numbers: for `antiphon inspect`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from antiphon import kernels, metrics, tokenizer
from antiphon.history import read_records
from antiphon.model.packed import WORTH, gain
from antiphon.run import WEIGHTS, Model
from antiphon.text_side import CHECKPOINTS, METRICS, RunPath, members_of, read_config, read_facts


def summarize(run: RunPath) -> dict[str, dict[str, Any]]:
    """Tables of name and value: model, data, training, and each table of settings. Raises ValueError for no run, and
    for an ensemble, of which there is no one size or setting."""
    folder, *others = members_of(run)
    if others:
        raise ValueError(f"{run}: is an ensemble of {1 + len(others)} runs; inspect one of them.")
    config = read_config(folder)
    facts = asdict(read_facts(folder))
    tokenizers = tokenizer.load(folder)
    return {
        "model": {
            "parameters": _parameters(folder / WEIGHTS),
            "bytes": (folder / WEIGHTS).stat().st_size if (folder / WEIGHTS).exists() else 0,
            "source_tokens": f"{tokenizers.source.vocab_size} ({tokenizers.source.kind})",
            "target_tokens": f"{tokenizers.target.vocab_size} ({tokenizers.target.kind})",
        },
        "decoding": _decoding(folder),
        "data": facts,
        "training": _history(folder / METRICS) | {"checkpoints": len(list((folder / CHECKPOINTS).glob("step-*")))},
        **{f"[{name}]": table for name, table in config.model_dump().items()},
    }


def _decoding(folder: Path) -> dict[str, Any]:
    """What `auto` precision comes to on this processor; nothing before the first weights are written."""
    if not (folder / WEIGHTS).exists():
        return {}
    times = gain(Model.load(folder, precision="float32").network)
    return {
        "precision": "int8" if times > WORTH else "float32",
        "int8_over_float32": f"{times:.1f} times as fast here" if times else "cannot be had for this model here",
        "kernels": (
            "none: no C++ compiler, or it could not build them"
            if kernels.library() is None
            else "built for this processor"
        ),
    }


def _parameters(weights: Path) -> int:
    """Counted from the file's header; 0 before the first weights are written."""
    if not weights.exists():
        return 0
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        with safe_open(weights, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                total += size
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights}: cannot be read as weights ({error}); train again, or restore the file.") from None
    return total


def _history(file: Path) -> dict[str, Any]:
    """The last step and the best validation of metrics.jsonl."""
    if not file.exists():
        return {}
    last: dict[str, Any] = {}
    validations = []
    kept: dict[str, Any] = {}  # of a run that has finished
    for entry in read_records(file):
        if "dev_loss" in entry:
            validations.append(entry)
        elif "kept" in entry:
            kept = {"kept": entry["kept"], f"best_{entry['metric']}": entry["value"]}
        elif "loss" in entry:
            last = entry
    history: dict[str, Any] = {"steps": last.get("step", 0), "seconds": round(last.get("seconds", 0.0), 1)}
    if validations:
        final = {key: round(value, 4) for key, value in validations[-1].items() if key.startswith("dev_")}
        history |= {f"last_{key}": value for key, value in final.items()}
        history["validations"] = len(validations)
        metric = next((key for key in final if key != "dev_loss"), "dev_loss").removeprefix("dev_")
        values = [one[f"dev_{metric}"] for one in validations if f"dev_{metric}" in one]
        history[f"best_{metric}"] = (max if metrics.HIGHER_IS_BETTER[metric] else min)(values)
    return history | kept
