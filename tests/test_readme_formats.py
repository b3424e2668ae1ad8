"""README's table of formats: every cell is held by tests that exist, with the packages it names.

A cell that is new or says something else fails here until it has its line below.
"""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
README = TESTS.parent / "README.md"

# (row, column): for each thing that the cell says, in its order, the tests that hold it.
READ, WRITTEN, WITH = "read", "written", "tested with"
HELD = {
    ("Llama, Hugging Face directory", READ): ["import.llamas_of_many_shapes"],
    ("Llama, Hugging Face directory", WRITTEN): [
        "export_hugging_face.transformers_computes_and_generates_the_same"
    ],
    ("weights, safetensors", READ): ["import.shards_and_their_index"],
    ("weights, safetensors", WRITTEN): ["export_hugging_face.weights_alone_have_our_names"],
    ("GGUF: F32, F16, BF16, Q8_0", WRITTEN): ["export_gguf.every_tensor_is_read_back"],
    ("`tokenizer.json`", READ): [
        "tokenizer_formats.loads_what_hugging_face_saves",
        "tokenizer_exchange.every_trip_gives_the_tokenizer_back",
    ],
    ("`tokenizer.json`", WRITTEN): [
        "tokenizer_exchange.ours_tokenizers_and_tiktoken_agree",
        "tokenizer_exchange.every_trip_gives_the_tokenizer_back",
    ],
    ("`vocab.json` + `merges.txt`", READ): ["tokenizer_formats.every_way_to_load_what_was_saved"],
    ("`vocab.json` + `merges.txt`", WRITTEN): [
        "tokenizer_exchange.ours_tokenizers_and_tiktoken_agree"
    ],
    ("`.tiktoken`", READ): [
        "tokenizer_formats.tiktoken_file",
        "tokenizer_exchange.every_trip_gives_the_tokenizer_back",
    ],
    ("`.tiktoken`", WRITTEN): [
        "tokenizer_exchange.a_tiktoken_file_is_read_by_tiktoken_and_the_note_says_the_rest",
        "tokenizer_exchange.ours_tokenizers_and_tiktoken_agree",
    ],
    ("tokens: `.npy`", READ): ["token_dataset.a_number_gives_an_id"],
    ("tokens: `.npy`", WRITTEN): ["tokenizer_files.equals_encode"],
    ("tokens: nanoGPT's, llm.c's `.bin`, Megatron's `.bin` + `.idx`", READ): [
        "foreign_token_files.any_ids_in_any_of_them"
    ],
    ("text: plain, `.gz`, `.zst`, `.jsonl`, `.parquet`", READ): [
        "tokenize_inputs.training",
        "tokenize_inputs.encoding",
    ],
}

# The same for what a row was tested with: the file, and what it imports of the package.
PACKAGES = {
    ("Llama, Hugging Face directory", "transformers"): ("export_hugging_face", "transformers"),
    ("weights, safetensors", "safetensors"): ("export_hugging_face", "safetensors"),
    ("GGUF: F32, F16, BF16, Q8_0", "gguf"): ("export_gguf", "gguf"),
    ("GGUF: F32, F16, BF16, Q8_0", "transformers"): ("export_gguf", "transformers"),
    ("GGUF: F32, F16, BF16, Q8_0", "llama.cpp"): ("export_gguf", "llama_cpp"),
    ("`tokenizer.json`", "tokenizers"): ("tokenizer_exchange", "tokenizers"),
    ("`tokenizer.json`", "transformers"): ("tokenizer_exchange", "transformers"),
    ("`vocab.json` + `merges.txt`", "tokenizers"): ("tokenizer_exchange", "tokenizers"),
    ("`.tiktoken`", "tiktoken"): ("tokenizer_exchange", "tiktoken"),
    ("tokens: `.npy`", "NumPy"): ("tokenizer_files", "numpy"),
    ("tokens: nanoGPT's, llm.c's `.bin`, Megatron's `.bin` + `.idx`", "Megatron"): (
        *("foreign_token_files", "megatron"),
    ),
    ("text: plain, `.gz`, `.zst`, `.jsonl`, `.parquet`", "gzip"): ("tokenize_inputs", "gzip"),
    ("text: plain, `.gz`, `.zst`, `.jsonl`, `.parquet`", "pyarrow"): ("tokenize_inputs", "pyarrow"),
}


def table() -> list[dict[str, str]]:
    """The rows of the table, by column; the first has no title."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in README.read_text().splitlines()
             if line.startswith("|")]  # fmt: skip
    cells = [[cell.strip() for cell in line] for line in lines]
    start = cells.index(["", READ, WRITTEN, WITH])
    rows = []
    for line in cells[start + 2 :]:
        if len(line) != 4 or line[0] == "":
            break
        rows.append(dict(zip(("row", READ, WRITTEN, WITH), line, strict=True)))
    return rows


def exists(test: str) -> bool:
    file, name = test.split(".")
    tree = ast.parse((TESTS / f"test_{file}.py").read_text("utf-8"))
    return any(
        isinstance(node, ast.FunctionDef) and node.name == f"test_{name}" for node in tree.body
    )


def imports(file: str) -> set[str]:
    """The packages that a file of tests imports, ``pytest.importorskip`` included."""
    found = set()
    for node in ast.walk(ast.parse((TESTS / f"test_{file}.py").read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
            found.add(ast.literal_eval(node.args[0]))
    return {name.split(".")[0] for name in found}


def test_the_table_is_found():
    assert len(table()) >= 9


@pytest.mark.parametrize("row", table(), ids=lambda row: row["row"])
def test_every_cell_has_its_tests(row):
    for column in (READ, WRITTEN):
        tests = HELD.get((row["row"], column), [])
        assert bool(tests) == bool(row[column]), f"{row['row']}: {row[column] or column!r}"
        # `Tokenizer.load`, `.from_hf`: two things, two tests.
        said = len(re.findall(r"`[^`]+`", row[column]))
        assert len(tests) == said, f"{row['row']}: {row[column]}"
        assert all(map(exists, tests)), tests
    named = row[WITH].split(", ") if row[WITH] else []
    assert named, f"{row['row']} was tested with nothing"
    for package in named:
        if package.startswith("files "):  # made by the definition of their format
            continue
        file, module = PACKAGES[row["row"], package]
        assert module in imports(file), f"{file}: {package}"


def test_nothing_is_held_that_the_table_does_not_say():
    rows = {row["row"]: row for row in table()}
    assert {name for name, _ in HELD} | {name for name, _ in PACKAGES} == set(rows)
    for name, package in PACKAGES:
        assert package in rows[name][WITH].split(", ")
