"""Which operators the time goes into, as torch.profiler sees it."""

import torch
from tables import columns


def profiler() -> torch.profiler.profile:
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True)


def print_operators(found: torch.profiler.profile, steps: int, count: int = 15) -> None:
    """The costliest operators: their share of the time inside operators, calls and milliseconds a step."""
    events = sorted(found.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in events)
    rows = [["operator", "share", "calls a step", "ms a step"]]
    for event in events[:count]:
        share, calls = 100 * event.self_cpu_time_total / total, event.count / steps
        rows.append([event.key, f"{share:.1f}%", f"{calls:.0f}", f"{event.self_cpu_time_total / 1000 / steps:.2f}"])
    calls = sum(event.count for event in events) / steps
    rows.append(["all operators", "100.0%", f"{calls:.0f}", f"{total / 1000 / steps:.2f}"])
    print(columns(rows), flush=True)
