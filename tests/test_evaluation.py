"""Evaluation by sliding windows, by document and by position equals what plain loops compute."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cs336lm import Tokenizer, evaluate, evaluate_documents
from cs336lm.cli.main import main
from cs336lm.data import TokenDataset
from cs336lm.errors import UsageError
from cs336lm.evaluation.by_position import PositionLosses
from cs336lm.evaluation.floor import compare
from cs336lm.evaluation.windows import sliding_windows
from cs336lm.model import TransformerLM
from cs336lm.text.stories import corpus, entropy, log_probability
from cs336lm.training.config import save_config
from cs336lm.training.run_directory import load_run
from cs336lm.training.trainer import Trainer
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import CONTEXT_LENGTH, MODEL, VOCAB_SIZE, make_config, write_tokens
from torch.nn.functional import cross_entropy

END = 0


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TransformerLM(MODEL).eval()


def dataset_of(folder, ids, name="t"):
    np.save(folder / f"{name}.npy", np.asarray(ids, np.uint16))
    return TokenDataset(folder / f"{name}.npy")


@torch.no_grad()
def loss_of(model, before, token):
    """-log p of ``token`` after the ids ``before``, by the whole logits."""
    logits = model(torch.tensor([list(before)]))[0, -1]
    return cross_entropy(logits, torch.tensor(int(token))).item()


def slow_losses(model, ids, stride):
    """(tokens of context, loss) of each id but the first, one call of the model each."""
    context = model.config.context_length
    found, begin = [], 0
    for target in range(1, len(ids)):
        while target > begin + context:
            begin += stride
        found.append((target - begin, loss_of(model, ids[begin:target], ids[target])))
    return found


def documents_of(lengths, rest=0, seed=0):
    """Ids of documents of these lengths, the end included, and of one that does not end."""
    draw = np.random.default_rng(seed)
    parts = [[*draw.integers(1, VOCAB_SIZE, length - 1), END] for length in lengths]
    parts.append(draw.integers(1, VOCAB_SIZE, rest))
    return [int(token) for part in parts for token in part]


# Windows


@given(st.integers(1, 200), st.integers(1, 20), st.data())
def test_sliding_windows_predict_each_token_once(predicted, context, data):
    stride = data.draw(st.integers(1, context))
    windows = list(sliding_windows(5, predicted, context, stride))
    new = [w.start + at + 1 for w in windows for at in range(w.known, w.length)]
    assert new == list(range(6, predicted + 6))
    assert all(window.length <= context for window in windows)
    assert all(window.known + stride >= context for window in windows[1:])


@pytest.mark.parametrize("stride", [1, 3, 5, CONTEXT_LENGTH])
@pytest.mark.parametrize("tokens", [2, CONTEXT_LENGTH + 1, 50])
def test_a_stride_is_a_loop_over_tokens(model, tmp_path, stride, tokens):
    ids = np.random.default_rng(1).integers(0, VOCAB_SIZE, tokens)
    dataset = dataset_of(tmp_path, ids)
    slow = slow_losses(model, ids, stride)
    for batch_size in (None, 1, 3):
        figures = evaluate(model, dataset, stride=stride, batch_size=batch_size)
        assert figures.loss == pytest.approx(np.mean([loss for _, loss in slow]), rel=1e-5)
        assert (figures.tokens, figures.stride) == (tokens - 1, stride)


def test_a_stride_of_the_context_is_no_stride(model, tmp_path):
    dataset = TokenDataset(write_tokens(tmp_path / "t.npy", 333))
    assert evaluate(model, dataset, stride=CONTEXT_LENGTH) == evaluate(model, dataset)
    for stride in (0, -1, CONTEXT_LENGTH + 1):
        with pytest.raises(UsageError, match=f"a stride of {stride} is impossible.* 1 to .* 8"):
            evaluate(model, dataset, stride=stride)


# By document


def slow_documents(model, ids, stride):
    """The losses of each document, one token at a time: ([(context, loss), ...], finished)."""
    found, current = [], []
    for token in ids:
        current.append(token)
        if token == END:
            found.append((current, True))
            current = []
    if current:
        found.append((current, False))
    return [(slow_losses(model, [END, *document], stride), done) for document, done in found]


@pytest.mark.parametrize(
    ("lengths", "rest"),
    [([3, 5, 2, 8, 9], 0), ([1, 1, 4], 3), ([30, 2, 8, 17, 1], 0), ([40], 12), ([2], 1)],
)
@pytest.mark.parametrize("stride", [None, 3, CONTEXT_LENGTH])
def test_documents_are_read_one_at_a_time(model, tmp_path, lengths, rest, stride):
    ids = documents_of(lengths, rest)
    dataset = dataset_of(tmp_path, ids)
    if lengths[0] == 1:
        ids, lengths = ids[1:], lengths[1:]  # an end at the very beginning ends nothing
    slow = slow_documents(model, ids, stride or CONTEXT_LENGTH // 2)
    sums = [sum(loss for _, loss in losses) for losses, _ in slow]
    for batch_size in (None, 1, 2):
        told = []
        figures = evaluate_documents(
            model,
            dataset,
            document_token=END,
            stride=stride,
            batch_size=batch_size,
            on_document=told.append,
        )
        assert [document.nats for document in told] == pytest.approx(sums, rel=1e-5)
        assert [document.tokens for document in told] == [len(losses) for losses, _ in slow]
        assert figures.loss == pytest.approx(sum(sums) / len(ids), rel=1e-5)
        assert figures.tokens == len(ids)
        assert figures.documents == len(lengths)
        finished = [total for total, (_, done) in zip(sums, slow, strict=True) if done]
        assert figures.nats_per_document == pytest.approx(np.mean(finished), rel=1e-5)
        assert figures.tokens_per_document == np.mean(lengths)
        assert figures.unfinished_tokens == rest
        assert figures.longer_than_context == sum(n > CONTEXT_LENGTH for n in lengths)
        assert figures.floor is None
    for document in told:
        part = dataset[document.start : document.start + document.tokens]
        assert part.tolist() == ids[len(ids) - len(dataset) + document.start :][: len(part)]


def test_many_documents_in_groups_and_parts_of_a_file(model, tmp_path, monkeypatch):
    dataset = dataset_of(tmp_path, documents_of([5, 3, 20, 1, 7] * 30, 4))
    whole = evaluate_documents(model, dataset, document_token=END, by_position=True)
    monkeypatch.setattr("cs336lm.evaluation.by_document._GROUP", 7)
    monkeypatch.setattr("cs336lm.evaluation.token_losses._GROUP", 3)
    monkeypatch.setattr("cs336lm.data.dataset._SCAN_TOKENS", 11)
    parts = evaluate_documents(model, dataset, document_token=END, by_position=True)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.documents == whole.documents == 150
    assert parts.by_position.tokens.tolist() == whole.by_position.tokens.tolist()


def test_what_ends_a_document_must_be_known(model, tmp_path):
    dataset = dataset_of(tmp_path, [1, 2, 3])
    with pytest.raises(
        UsageError, match=r"no tokenizer to say which token ends a document: .* by "
    ):
        evaluate_documents(model, dataset)
    with pytest.raises(ValueError, match=r"t\.npy does not hold the token 7"):
        evaluate_documents(model, dataset, document_token=7)
    with pytest.raises(ValueError, match=r"token 40, .* outside the model's vocabulary of 40"):
        evaluate_documents(model, dataset, document_token=40)


# The floor


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """Stories, a model of bytes that has seen none, and their probabilities by the grammar."""
    folder = tmp_path_factory.mktemp("stories")
    text = b"".join(corpus(6000, seed=5))
    (folder / "s.txt").write_bytes(text)
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)}, [], ["<|endoftext|>"])
    tokenizer.encode_files(folder / "s.txt", folder / "s.npy")
    tales = [tale.strip("\n") for tale in text.decode().split("<|endoftext|>")][:-1]
    shape = {"context_length": 64, "d_model": 8, "num_layers": 1, "num_heads": 1}
    model = TransformerLM(type(MODEL)(vocab_size=257, **shape))
    return model, TokenDataset(folder / "s.npy"), tokenizer, tales


def test_stories_are_known_and_compared_with_their_entropy(stories):
    model, dataset, tokenizer, tales = stories
    figures = evaluate_documents(model, dataset, tokenizer=tokenizer)
    assert figures.documents == len(tales) > 5
    assert figures.unfinished_tokens == 1, "the newline after the last end of text"
    assert figures.bytes == len(dataset) - len(tales)
    floor = figures.floor
    assert floor.source == "stories"
    assert floor.nats_per_document == entropy().nats_per_story
    perfect = -np.mean([log_probability(tale) for tale in tales])
    assert floor.perfect_nats_per_document == pytest.approx(perfect)
    assert floor.excess_per_document == figures.nats_per_document - floor.nats_per_document
    assert floor.excess_share == pytest.approx(
        figures.nats_per_document / entropy().nats_per_story - 1
    )
    assert floor.excess_share_of_perfect == pytest.approx(figures.nats_per_document / perfect - 1)
    assert floor.excess_per_token * figures.tokens_per_document == pytest.approx(
        floor.excess_per_document
    )


def test_a_perfect_model_is_at_the_floor(stories):
    """What the grammar itself would pay: nothing above itself."""
    _, _, _, tales = stories
    nats = -sum(log_probability(tale) for tale in tales)

    class Reader:
        are_stories, log_probability = True, -nats

    floor = compare(nats, len(tales), 1000, given=None, reader=Reader())
    assert floor.excess_share_of_perfect == 0
    scatter = 5 / math.sqrt(len(tales))
    assert abs(floor.excess_per_document) < 4 * scatter


def test_other_texts_have_no_floor_unless_it_is_given(stories, tmp_path):
    model, _, tokenizer, tales = stories
    text = f"{tales[0]}<|endoftext|>{tales[1]} And so on.<|endoftext|>"
    (tmp_path / "o.txt").write_text(text)
    tokenizer.encode_files(tmp_path / "o.txt", tmp_path / "o.npy")
    other = TokenDataset(tmp_path / "o.npy")
    assert evaluate_documents(model, other, tokenizer=tokenizer).floor is None
    figures = evaluate_documents(model, other, tokenizer=tokenizer, floor=1000.0)
    assert figures.floor.source == "given"
    assert figures.floor.perfect_nats_per_document is None
    assert figures.floor.excess_share == pytest.approx(figures.nats_per_document / 1000 - 1)


# By position


@pytest.mark.parametrize("stride", [CONTEXT_LENGTH, 3])
def test_positions_are_counted_from_the_context(model, tmp_path, stride):
    ids = np.random.default_rng(1).integers(0, VOCAB_SIZE, 60)
    figures = evaluate(model, dataset_of(tmp_path, ids), stride=stride, by_position=True)
    slow = slow_losses(model, ids, stride)
    for one in figures.by_position.as_json():
        mine = [loss for context, loss in slow if context == one["position"]]
        assert one["tokens"] == len(mine)
        assert one["loss"] == pytest.approx(np.mean(mine), rel=1e-5)
    bins = figures.by_position.bins()
    assert [(one.first, one.last) for one in bins] == [(1, 1), (2, 2), (3, 4), (5, 8)]
    for one in bins:
        mine = [loss for context, loss in slow if one.first <= context <= one.last]
        assert one.tokens == len(mine)
        assert one.loss == pytest.approx(np.mean(mine), rel=1e-5)
        if one.tokens > 1:
            error = np.std(mine, ddof=1) / math.sqrt(len(mine))
            assert one.standard_error == pytest.approx(error, rel=1e-3)
    total = sum(one.loss * one.tokens for one in bins) / sum(one.tokens for one in bins)
    assert total == pytest.approx(figures.loss, rel=1e-6)


@given(st.integers(1, 300))
def test_bins_cover_every_position_once(context):
    losses = PositionLosses(np.ones(context), np.ones(context), np.ones(context, np.int64))
    bins = losses.bins()
    assert [at for one in bins for at in range(one.first, one.last + 1)] == [*range(1, context + 1)]
    assert all(one.loss == 1 for one in bins)
    assert PositionLosses.empty(context).bins() == []


# The command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_config(make_config(folder, steps=2), folder / "run.toml")
    config = str(folder / "run.toml")
    assert main(["train", "--config", config, "--run-dir", str(folder / "a")]) == 0
    return folder / "a"


def figures_of(capsys, *flags):
    capsys.readouterr()
    assert main(["evaluate", *map(str, flags), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_says_what_the_functions_say(run, tmp_path, capsys):
    _, model, _ = load_run(run)
    dataset = TokenDataset(run.parent / "val.npy")
    plain = figures_of(capsys, run)
    assert plain["loss"] == evaluate(model, dataset).loss
    assert plain["stride"] == CONTEXT_LENGTH
    assert figures_of(capsys, run, "--stride", 2)["loss"] == evaluate(model, dataset, stride=2).loss
    out = tmp_path / "d.jsonl"
    flags = ["--by-document", "--document-token", "0", "--floor", "9", "--documents-out", out]
    told = figures_of(capsys, run, *flags, "--by-position")
    figures = evaluate_documents(model, dataset, document_token=0, floor=9.0, by_position=True)
    assert told["loss"] == figures.loss
    assert told["floor"]["excess_share"] == figures.floor.excess_share
    assert told["by_position"] == figures.by_position.as_json()
    assert told["position_bins"][0]["tokens"] == figures.by_position.tokens[0]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == told["documents"] + (told["unfinished_tokens"] > 0)
    assert sum(line["nats"] for line in lines) == pytest.approx(told["loss"] * told["tokens"])
    figures_of(capsys, run, *flags)  # its own file is replaced


def test_figures_are_printed(run, tmp_path, capsys):
    plot = tmp_path / "p.png"
    flags = ["--by-document", "--document-token", "0", "--floor", "9", "--by-position"]
    assert main(["evaluate", str(run), *flags, "--plot", str(plot)]) == 0
    told = capsys.readouterr().out
    assert "tokens each on average" in told
    assert "in windows 4 apart" in told
    assert "entropy        9.000 nats as given: the model is +" in told
    assert "loss by tokens of context" in told
    assert "            5-8  " in told
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--floor 3", "--floor belongs to --by-document"),
        ("--document-token 0", "--document-token belongs to --by-document"),
        ("--plot p.png", "--plot draws what --by-position measures"),
        ("--by-position --plot p.txt", "p.txt must end in one of .png, .svg, .pdf"),
        ("--by-position --plot FOREIGN.png", "FOREIGN.png exists and is no plot"),
        ("--by-document --documents-out FOREIGN.png", "FOREIGN.png exists and is no file of this"),
        ("--stride 9", "a stride of 9 is impossible"),
        ("--stride 0", "not a whole number of at least 1"),
        ("--by-document", "which token ends a document: give its id by --document-token"),
        ("--by-document --document-token x", "'x' is not the id of a token"),
    ],
)
def test_wrong_calls_are_refused(run, tmp_path, monkeypatch, capsys, flags, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOREIGN.png").write_text("mine")
    try:
        status = main(["evaluate", str(run), *flags.split()])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    told = capsys.readouterr().err
    assert says in told
    assert (tmp_path / "FOREIGN.png").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["FOREIGN.png"]


# Validation of so many tokens


@pytest.mark.parametrize("eval_tokens", [1, 64, 100, 10**9])
def test_eval_tokens_is_evaluate_on_the_beginning(tmp_path, eval_tokens):
    write_tokens(tmp_path / "val.npy", 500)
    windows = min(-(-eval_tokens // CONTEXT_LENGTH), 499 // CONTEXT_LENGTH)
    losses = []
    for batch_size, rounds in ((1, 1), (8, 2), (7, 1), (48, 1)):
        how = {"batch_size": batch_size, "grad_accumulation": rounds}
        trainer = Trainer(
            make_config(tmp_path, eval_tokens=eval_tokens, **how), tmp_path / f"r{batch_size}"
        )
        losses.append(trainer.validate())
    np.save(tmp_path / "first.npy", np.load(tmp_path / "val.npy")[: windows * CONTEXT_LENGTH + 1])
    first = evaluate(trainer.model, TokenDataset(tmp_path / "first.npy"))
    assert first.tokens == windows * CONTEXT_LENGTH
    assert losses == pytest.approx([first.loss] * len(losses), rel=1e-6)


def test_validation_by_document(tmp_path):
    np.save(tmp_path / "val.npy", np.asarray(documents_of([5, 6, 20, 3, 2, 7] * 20), np.uint16))
    config = make_config(tmp_path, eval_by_document=True)
    with pytest.raises(UsageError, match=r"give its id by --data\.document-token"):
        Trainer(config, tmp_path / "run")
    data = replace(config.data, document_token=END)
    trainer = Trainer(replace(config, data=data), tmp_path / "run")
    starts = trainer.data.val_windows
    val = trainer.data.val
    assert starts[0] == 0
    assert (val[starts[1:]] == END).all()
    slow = []
    for start in starts:
        ids = val[start : start + CONTEXT_LENGTH + 1].tolist()
        slow += [loss for _, loss in slow_losses(trainer.model, ids, CONTEXT_LENGTH)]
    assert trainer.validate() == pytest.approx(np.mean(slow), rel=1e-5)
    few = replace(config, data=data, train=replace(config.train, eval_tokens=30))
    other = Trainer(few, tmp_path / "other")
    assert other.data.val_windows.tolist() == starts[:4].tolist()
    uniform = Trainer(make_config(tmp_path, eval_tokens=30), tmp_path / "third")
    fingerprints = {t._setup.measured_on for t in (trainer, other, uniform)}
    assert len(fingerprints) == 3
