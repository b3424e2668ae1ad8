"""Does every path compute on this device what it computes on the CPU? A minute, one line a path.

    python check.py                     all paths, each group in a process of its own, side by side
    python check.py --group compiled    one group

A tiny model is trained, compiled, saved, resumed and asked for text in every precision that the
device has; losses, gradients and ids are compared with those of the CPU in float32. The first path
that fails names itself. The exit status is 1 if any failed, and 2 if there is no GPU to check.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cs336lm import AdamW, ModelConfig, Tokenizer, TransformerLM, clip_gradients, generate
from cs336lm.cli.main import main as cs336lm

SHAPE = ModelConfig(vocab_size=512, context_length=128, d_model=128, num_layers=2, num_heads=4)
Case = Callable[[torch.device], str]


def tiny_model(device: torch.device) -> TransformerLM:
    """The same weights wherever it is made: they are drawn on the CPU."""
    torch.manual_seed(1)
    return TransformerLM(SHAPE).to(device)


def tiny_batch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 512, (4, 129), generator=torch.Generator().manual_seed(0)).to(device)
    return ids[:, :-1], ids[:, 1:]


def loss_and_gradients(
    device: torch.device, dtype: torch.dtype, *, compiled: bool = False, fp8: bool = False
) -> tuple[float, dict[str, torch.Tensor]]:
    model = tiny_model(device)
    model.use_fp8(fp8)
    function = torch.compile(model) if compiled else model
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        loss = function(*tiny_batch(device))
    loss.backward()
    return loss.item(), {name: p.grad.float().cpu() for name, p in model.named_parameters()}


def step(
    dtype: torch.dtype, tolerance: float, *, compiled: bool = False, fp8: bool = False
) -> Case:
    """Loss within ``tolerance`` and each gradient within 25 times that, relatively."""

    def case(device: torch.device) -> str:
        wanted_loss, wanted = loss_and_gradients(torch.device("cpu"), torch.float32)
        loss, gradients = loss_and_gradients(device, dtype, compiled=compiled, fp8=fp8)
        errors = {
            name: float((gradients[name] - wanted[name]).norm() / wanted[name].norm())
            for name in wanted
        }
        worst = max(errors, key=lambda name: errors[name])
        said = f"loss {loss:.5f} for {wanted_loss:.5f}, gradients within {errors[worst]:.1e}"
        if abs(loss - wanted_loss) > tolerance * wanted_loss or errors[worst] > 25 * tolerance:
            raise AssertionError(f"{said} ({worst})")
        return said

    return case


def optimizer(device: torch.device) -> str:
    ours, theirs = tiny_model(device), tiny_model(device)
    steps = [AdamW(ours.parameters(), lr=1e-2), torch.optim.AdamW(theirs.parameters(), lr=1e-2)]
    for _ in range(5):
        for model, optimizer in zip((ours, theirs), steps, strict=True):
            model(*tiny_batch(device)).backward()
            clip_gradients(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    worst = max(float((p - q).detach().abs().max()) for p, q in pairs)
    if worst > 1e-2:
        raise AssertionError(f"the weights differ by {worst}")
    return f"weights within {worst:.1e} of torch.optim.AdamW's"


def command(*flags: str) -> Case:
    """``cs336lm train`` learns a loop of ids, and goes on with ``--resume``."""

    def case(device: torch.device) -> str:
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/t.npy", np.tile(np.arange(500, dtype=np.uint16), 100))
            run = f"{folder}/run"
            settings = {
                "data.train": f"{folder}/t.npy",
                "data.val": f"{folder}/t.npy",
                "data.batch-size": 16,
                "model.vocab-size": 512,
                "model.context-length": 64,
                "model.d-model": 128,
                "model.num-heads": 4,
                "model.num-layers": 2,
                "optim.lr": 3e-3,
                "train.steps": 60,
                "train.eval-every": 30,
                "train.eval-batches": 2,
                "train.checkpoint-every": 30,
                "train.device": str(device),
            }
            asked = [word for k, v in settings.items() for word in (f"--{k}", str(v))]
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                first = cs336lm(["train", "--run-dir", run, *asked, *flags])
                again = cs336lm(["train", "--resume", "--run-dir", run, "--train.steps", "70"])
            if first or again:
                raise AssertionError(said.getvalue().strip().splitlines()[-1])
            lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        if last["step"] != 70 or last["val_loss"] > 1:
            raise AssertionError(
                f"at step {last['step']} the validation loss is {last['val_loss']}"
            )
        return f"validation loss {last['val_loss']:.4f} at step 70"

    return case


def text(dtype: torch.dtype, *, compiled: bool, **choices: object) -> Case:
    """Greedy text of a model is that of the loop without a cache, beyond its window, too."""

    def case(device: torch.device) -> str:
        torch.manual_seed(2)
        config = ModelConfig(256, 320, 128, 2, 4, **choices)
        model = TransformerLM(config).to(device, dtype).eval()
        # Its likeliest token stands clear of the second.
        torch.nn.init.normal_(model.lm_head.weight, std=0.4)
        prompt, new = "Once upon a time", 330
        row = list(prompt.encode())
        with torch.inference_mode():
            while len(row) < len(prompt) + new:
                start = max(0, -(-(len(row) - 320) // 160) * 160)
                logits = model(torch.tensor([row[start:]], device=device))
                row.append(int(logits[0, -1].argmax()))
        tokenizer = Tokenizer({i: bytes([i]) for i in range(256)}, [])
        wanted = tokenizer.decode(row[len(prompt) :])
        written = generate(
            model, tokenizer, prompt, max_new_tokens=new, temperature=0, compile=compiled
        )
        same = next(
            (i for i, (a, b) in enumerate(zip(written, wanted, strict=False)) if a != b),
            len(wanted),
        )
        # In half precision two ids may be nearly as likely, and rounding chooses.
        if same < (len(wanted) if dtype == torch.float32 else 8):
            raise AssertionError(f"the first difference is at character {same}")
        return f"the first {same} characters of {len(wanted)} are equal"

    return case


def cases(device: torch.device) -> dict[str, dict[str, Case]]:
    """Groups of paths; a group runs in one process."""
    half, narrow = torch.bfloat16, torch.float16
    found: dict[str, dict[str, Case]] = {
        "eager": {
            "step in float32": step(torch.float32, 2e-3),
            "step in bfloat16": step(half, 2e-2),
            "step in float16": step(narrow, 2e-2),
            "AdamW": optimizer,
            "text in float32": text(torch.float32, compiled=False),
            "text in bfloat16": text(half, compiled=False),
            "train, then --resume": command(),
            "train with activation checkpointing and accumulation": command(
                "--train.activation-checkpointing", "--train.grad-accumulation", "4"
            ),
        },
        "compiled float32": {"step in float32": step(torch.float32, 2e-3, compiled=True)},
        "compiled bfloat16": {"step in bfloat16": step(half, 2e-2, compiled=True)},
        "compiled text": {
            "text in float32": text(torch.float32, compiled=True),
            "text of other choices": text(
                torch.float32,
                compiled=True,
                num_kv_heads=2,
                qk_norm=True,
                ffn="relu2",
                logit_softcap=30.0,
            ),
            "text in bfloat16": text(half, compiled=True),
        },
        "compiled train": {"train --train.compile": command("--train.compile")},
    }
    if device.type == "cuda":
        found["eager"]["train in float16"] = command("--train.dtype", "float16")
        if torch.cuda.get_device_capability(device) >= (8, 9):
            found["eight bits"] = {"step in eight bits": step(half, 5e-2, fp8=True)}
            found["compiled eight bits"] = {
                "step in eight bits": step(half, 5e-2, compiled=True, fp8=True)
            }
    return found


def check(group: str, device: torch.device) -> bool:
    """Runs the paths of a group; whether all are right."""
    good = True
    for name, case in cases(device)[group].items():
        began = time.perf_counter()
        try:
            said, verdict = case(device), "ok  "
        except Exception as error:  # whatever a path may raise is its result
            first_line = (str(error).splitlines() or [""])[0]
            said, verdict, good = f"{type(error).__name__}: {first_line[:300]}", "FAIL", False
            traceback.print_exc(limit=-3)
        seconds = time.perf_counter() - began
        print(f"{verdict} {group}: {name}: {said} ({seconds:.1f} s)", flush=True)
    return good


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--group", help="run one group of paths in this process")
    parser.add_argument("--device", help="default: cuda")
    parser.add_argument("--limit", type=float, default=60, help="seconds for all (default: 60)")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device or "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU to check; --device cpu checks the paths of the CPU")
        return 2
    if arguments.group:
        return 0 if check(arguments.group, device) else 1
    began, failed = time.perf_counter(), []
    running = {
        group: subprocess.Popen(
            [sys.executable, __file__, "--group", group, "--device", str(device)]
        )
        for group in cases(device)
    }
    for group, process in running.items():
        try:
            process.wait(max(1.0, arguments.limit - (time.perf_counter() - began)))
        except subprocess.TimeoutExpired:
            process.kill()
            print(f"FAIL {group}: not finished after {arguments.limit:.0f} seconds", flush=True)
        if process.wait() != 0:
            failed.append(group)
    print(f"failed: {', '.join(failed)}" if failed else "every path is right", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
