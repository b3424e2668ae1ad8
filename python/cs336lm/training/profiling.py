"""Where a step's time goes: a trace for Perfetto, and the short answer in a table.

A few steps after the warm-up are recorded by PyTorch's profiler. The trace opens in
https://ui.perfetto.dev; the table adds up the phases of the loop on the host, and the device's own
time by kernel (on a CPU, where the two are one, by operator).
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

# The phases that the loop marks by `torch.profiler.record_function`.
PHASES = ("wait for data", "forward", "backward", "clip", "optimizer", "report")

_SKIPPED_STEPS = 5  # compilation, autotuning, first allocations
_STEPS = 5
_KERNELS_SHOWN = 10


class StepProfiler:
    """Records steps 6 to 10 of a session: call ``step()`` after each, ``close()`` at the end."""

    def __init__(self, directory: Path, device: torch.device) -> None:
        self.trace_file = directory / "trace.json.gz"
        self.table = ""
        self._device = device
        directory.mkdir(parents=True, exist_ok=True)
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=_SKIPPED_STEPS - 1, warmup=1, active=_STEPS, repeat=1),
            on_trace_ready=self._finish,
        )
        self._is_recording = True
        self._profile.start()

    def step(self) -> None:
        """Says that a step is over."""
        if self._is_recording:
            self._profile.step()

    def close(self) -> None:
        """Ends the recording; a session shorter than it takes leaves what there is."""
        if self._is_recording:
            self._profile.stop()

    def _finish(self, recorded: profile) -> None:
        self._is_recording = False
        try:
            self.table = self._breakdown(recorded)
            recorded.export_chrome_trace(str(self.trace_file))
            said = f"{self.table}\n{self.trace_file} opens in ui.perfetto.dev"
        except Exception as error:  # a trace that cannot be written is no reason to end the run
            said = f"{self.table}\ncs336lm: {self.trace_file} could not be written: {error}"
        with suppress(OSError):
            print(said, file=sys.stderr)

    def _breakdown(self, recorded: profile) -> str:
        events = recorded.key_averages()
        spans = {e.key: e.cpu_time_total for e in events if e.device_type == DeviceType.CPU}
        whole = sum(time for name, time in spans.items() if name.startswith("ProfilerStep"))
        whole = whole or sum(spans.get(phase, 0) for phase in PHASES) or 1.0
        lines = [f"a step takes {whole / _STEPS / 1000:.2f} ms; on the host, of that:"]
        known = [(phase, spans.get(phase, 0.0)) for phase in PHASES]
        lines += _rows([*known, ("the rest", whole - sum(time for _, time in known))], whole)
        if self._device.type == "cuda":
            kernels = [
                (e.key, e.self_device_time_total)
                for e in events
                if e.device_type == DeviceType.CUDA and e.key not in PHASES
            ]
            busy = sum(time for _, time in kernels)
            lines.append(f"the GPU is busy {busy / whole:.1%} of the time:")
        else:
            kernels = [(e.key, e.self_cpu_time_total) for e in events if e.key.startswith("aten::")]
            lines.append("the operators that take most:")
        kernels.sort(key=lambda kernel: -kernel[1])
        return "\n".join(lines + _rows(kernels[:_KERNELS_SHOWN], whole))


def _rows(times: list[tuple[str, float]], whole: float) -> list[str]:
    """Name, milliseconds a step, share of the step."""
    return [
        f"  {name[:60]:<60} {time / _STEPS / 1000:9.3f} ms {time / whole:7.1%}"
        for name, time in times
    ]
