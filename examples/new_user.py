"""A new user's path, every step of it: text, a model, and the tools of others that open it.

    python examples/new_user.py                    two or three minutes on two cores
    python examples/new_user.py --quick            seconds: a model that has learned next to nothing

Train on the built-in stories, export, load in transformers, serve, call with OpenAI's client,
evaluate with lm-evaluation-harness. Each command is printed before it runs. A step whose package is
not installed says which one and is left out:

    pip install 'cs336lm[hf,serve,eval]' transformers openai
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from cs336lm.text.stories import stories

PROMPT = "Once upon a time, there was a"
NEW_TOKENS = 24


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    megabytes: float
    vocab_size: int
    width: int
    steps: int
    questions: int


SIZES = {
    False: Size(megabytes=6, vocab_size=1200, width=128, steps=600, questions=50),
    True: Size(megabytes=0.2, vocab_size=400, width=32, steps=20, questions=4),
}


def cs336lm(command: str) -> str:
    """Runs ``cs336lm COMMAND``, shown as it would be typed; what it printed."""
    print(f"\n$ cs336lm {command}", flush=True)
    line = [sys.executable, "-m", "cs336lm", *shlex.split(command)]
    printed = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(printed, end="", flush=True)
    return printed


def installed(step: str, *packages: str) -> bool:
    """Whether a step can be done; if not, says what is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        print(f"\nleft out: {step} needs {' and '.join(missing)}", flush=True)
    return not missing


def train(out: Path, size: Size) -> str:
    """Stories -> tokenizer -> tokens -> run; returns what the model makes of the prompt."""
    cs336lm(f"stories --megabytes {size.megabytes} --seed 1 --out {out}/train.txt")
    cs336lm(f"stories --megabytes {size.megabytes / 20} --seed 2 --out {out}/val.txt")
    cs336lm(
        f"train-bpe {out}/train.txt --vocab-size {size.vocab_size} "
        f"--special-token '<|endoftext|>' --out {out}/tokenizer"
    )
    for name in ("train", "val"):
        cs336lm(f"tokenize {out}/{name}.txt --tokenizer {out}/tokenizer --out {out}/{name}.npy")
    cs336lm(
        f"train --data.train {out}/train.npy --data.val {out}/val.npy "
        f"--data.tokenizer {out}/tokenizer --data.batch-size 8 --model.context-length 256 "
        f"--model.d-model {size.width} --model.num-layers 2 --model.num-heads 4 "
        f"--optim.name muon --optim.lr 8e-3 --train.steps {size.steps} "
        f"--train.eval-every {size.steps // 2} --run-dir {out}/run"
    )
    line = cs336lm(
        f"generate {out}/run --prompt '{PROMPT}' --max-new-tokens {NEW_TOKENS} --temperature 0 "
        "--json"
    )
    return json.loads(line)["text"]


def load_in_transformers(folder: Path) -> str:
    """The exported model, greedily, in transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[0]
    return tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@contextmanager
def served(run: Path, log: Path) -> Iterator[str]:
    """``cs336lm serve`` while the block runs; gives its address."""
    print(f"\n$ cs336lm serve {run} --port 0 > {log} &", flush=True)
    command = [sys.executable, "-m", "cs336lm", "serve", str(run), "--port", "0"]
    with open(log, "w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        while not (address := re.search(r"at (http://\S+)", log.read_text())):
            if server.poll() is not None:
                sys.exit(f"the server ended: {log.read_text()}")
            time.sleep(0.1)
        yield address[1].rstrip("/")
    finally:
        server.send_signal(signal.SIGTERM)  # it finishes what it is doing, and ends
        server.wait()


def call_with_openai(address: str, model: str) -> str:
    """A completion, greedily, by OpenAI's client; its tokens are printed as they come."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{address}/v1", api_key="none is asked for")
    print("models:", [each.id for each in client.models.list()])
    pieces = client.completions.create(
        model=model, prompt=PROMPT, max_tokens=NEW_TOKENS, temperature=0, stream=True
    )
    text = ""
    print(PROMPT, end="")
    for piece in pieces:
        if piece.choices:
            text += piece.choices[0].text
            print(piece.choices[0].text, end="", flush=True)
    print()
    return text


def write_task(folder: Path, questions: int) -> None:
    """A task of lm-evaluation-harness: how does a story that the model never saw go on?"""
    folder.mkdir(exist_ok=True)
    told = list(islice(stories(seed=3), 4 * questions))
    cuts = [story.find("\n\n", len(story) // 3) for story in told]
    ends = [story[cut : cut + 120] for story, cut in zip(told, cuts, strict=True)]
    with open(folder / "endings.jsonl", "w", encoding="utf-8") as file:
        for number in range(questions):
            choices = ends[4 * number : 4 * number + 4]
            question = told[4 * number + number % 4][: cuts[4 * number + number % 4]]
            row = {"question": question, "choices": choices, "answer": number % 4}
            file.write(json.dumps(row) + "\n")
    task = {
        "task": "endings",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder.resolve() / "endings.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    (folder / "endings.yaml").write_text(json.dumps(task))  # JSON is YAML


def evaluate(run: Path, tasks: Path) -> None:
    """The task, with the run as a model of the harness."""
    options = f"--model cs336lm --model_args run={run} --include_path {tasks} --tasks endings"
    print(f"\n$ python -m cs336lm.exchange.lm_eval run {options}", flush=True)
    command = [sys.executable, "-m", "cs336lm.exchange.lm_eval", "run", *shlex.split(options)]
    subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def main() -> None:
    """The steps, in order; each uses what those before it made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("new-user"), help="a new directory")
    parser.add_argument("--quick", action="store_true", help="as little as shows that it works")
    arguments = parser.parse_args()
    out, size = arguments.out, SIZES[arguments.quick]
    if out.exists():
        parser.error(f"{out} is there already: name a new directory with --out")
    out.mkdir(parents=True)

    text = train(out, size)
    if installed("the export", "safetensors", "tokenizers"):
        cs336lm(f"export {out}/run --format hf --out {out}/llama")
        if installed("loading it", "transformers"):
            same = load_in_transformers(out / "llama") == text
            print(f"transformers continues with the same text: {same}")
    if installed("serving", "starlette", "uvicorn"):
        with served(out / "run", out / "server.log") as address:
            with urllib.request.urlopen(f"{address}/health") as answer:
                print(f"{address}/health: {answer.status}")
            if installed("the call", "openai"):
                print(f"the server, too: {call_with_openai(address, 'run') == text}")
    if installed("the evaluation", "lm_eval"):
        write_task(out / "tasks", size.questions)
        evaluate(out / "run", out / "tasks")
    print(f"\nAll of it is in {out}.")


if __name__ == "__main__":
    main()
