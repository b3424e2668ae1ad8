"""Small tasks for lm-evaluation-harness: local, so that nothing is downloaded."""

import json
from pathlib import Path

TASKS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["mat", "log", "sat on the"],
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
}

NAMES = [f"local_{name}" for name in TASKS]


def write_tasks(folder: Path) -> None:
    """The tasks and their rows, as the harness reads them; JSON is YAML."""
    rows = [
        {"question": f"the {a} sat on the {b}; the", "answer": n % 3, "text": f"the {a} sat on {b}"}
        for n, (a, b) in enumerate((a, b) for a in ("cat", "dog", "hat") for b in ("mat", "log"))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in TASKS.items():
        data = {"data_files": {"test": str(folder / "rows.jsonl")}}
        whole = {"task": f"local_{name}", "dataset_path": "json", "dataset_kwargs": data}
        (folder / f"{name}.yaml").write_text(json.dumps({**whole, "test_split": "test", **task}))
