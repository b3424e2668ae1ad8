"""``cs336lm export --format hf`` and ``safetensors``, opened by the libraries they are for."""

import dataclasses
import json

import pytest
import torch
from cs336lm import ModelConfig, load_run
from cs336lm.cli.main import main
from cs336lm.training.checkpoints.state import pack
from cs336lm.training.run_directory import RunDirectory
from exchanged import END, TEXT, greedy, make_model, make_run, make_tokenizer, one_line
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

SHAPES = {
    "several heads": {},
    "one head": {"num_heads": 1},
    "heads of two": {"num_heads": 16},
    "another theta and eps": {"rope_theta": 500.0, "rms_norm_eps": 1e-3},
    "an odd width": {"d_ff": 37, "num_layers": 1},
    "a wider vocabulary": {"vocab_size": 300},
    "grouped queries": {"num_kv_heads": 2},
    "one head of keys": {"num_kv_heads": 1},
    "tied": {"tie_embeddings": True},
    "zeros at first": {"zero_init": True},
    "linear scaling": {"rope_scaling": "linear", "rope_scaling_factor": 2.5},
    "llama 3's scaling": {
        "rope_scaling": "llama3",
        "rope_scaling_factor": 8.0,
        "rope_original_context_length": 16,
        "rope_theta": 50.0,
        "num_kv_heads": 2,
        "tie_embeddings": True,
    },
}


def logits_of(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        return model, model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_transformers_computes_and_generates_the_same(tmp_path, capsys, shape):
    tokenizer = make_tokenizer()
    model = make_model(**{"vocab_size": tokenizer.vocab_size} | shape)
    run = make_run(tmp_path / "run", tokenizer, model)
    out = tmp_path / "llama"
    assert main(["export", str(run), "--format", "hf", "--out", str(out)]) == 0
    assert capsys.readouterr().err == ""

    ids = tokenizer.encode(TEXT)[:30]
    theirs, logits = logits_of(out, ids)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(torch.tensor(ids)), rtol=0, atol=1e-4)

    text = theirs.generate(
        torch.tensor([ids[:6]]), do_sample=False, max_new_tokens=20, eos_token_id=None
    )
    assert text[0].tolist() == greedy(model, ids[:6], 20, tokenizer.vocab_size)

    library = AutoTokenizer.from_pretrained(out, local_files_only=True)
    sample = f"the cat's naïve 漢字{END}  \n 12345 on"
    assert library(sample)["input_ids"] == tokenizer.encode(sample)
    assert library.decode(tokenizer.encode(sample)) == sample
    assert library.eos_token == END


def test_the_end_of_text_ends_a_text_there_too(tmp_path):
    tokenizer = make_tokenizer()
    end = tokenizer.token_to_id(END)
    model = make_model(tokenizer.vocab_size)
    run = make_run(tmp_path / "run", tokenizer, model)
    main(["export", str(run), "--format", "hf", "--out", str(tmp_path / "llama")])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    config = theirs.generation_config
    assert (config.eos_token_id, config.bos_token_id, config.pad_token_id) == (end, end, None)
    assert (theirs.config.eos_token_id, theirs.config.tie_word_embeddings) == (end, False)
    with torch.no_grad():  # a hidden state that is the same everywhere, and liked by the end alone
        theirs.model.norm.weight.zero_()
        theirs.model.norm.weight[0] = 1
        theirs.lm_head.weight.zero_()
    ids = theirs.generate(torch.tensor([[1, 2]]), do_sample=False, max_new_tokens=3)
    assert ids.shape == (1, 5)
    with torch.no_grad():
        sign = theirs.model(torch.tensor([[1, 2]])).last_hidden_state[0, -1, 0].sign()
        theirs.lm_head.weight[end, 0] = sign
    assert theirs.generate(torch.tensor([[1, 2]]), do_sample=False, max_new_tokens=3)[0, 2:] == end


def test_ids_of_no_token_are_never_generated_there(tmp_path):
    tokenizer = make_tokenizer()
    model = make_model(300)
    with torch.no_grad():
        model.lm_head.weight[263:] *= 50  # one of them is always the likeliest
    run = make_run(tmp_path / "run", tokenizer, model)
    main(["export", str(run), "--format", "hf", "--out", str(tmp_path / "llama")])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    ids = tokenizer.encode("the cat")
    text = theirs.generate(
        torch.tensor([ids]), do_sample=False, max_new_tokens=9, eos_token_id=None
    )
    assert text[0].tolist() == greedy(model, ids, 9, tokenizer.vocab_size)
    assert max(greedy(model, ids, 1, 300)) >= 263


def test_without_a_tokenizer_no_ids_are_invented(tmp_path, capsys):
    run = make_run(tmp_path / "run", None, make_model(50))
    assert main(["export", str(run), "--format", "hf", "--out", str(tmp_path / "llama")]) == 0
    assert "no tokenizer" in capsys.readouterr().err
    config = AutoConfig.from_pretrained(tmp_path / "llama")
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)


def test_both_generations_of_transformers_find_the_base_of_rope(tmp_path):
    """5 reads rope_parameters, 4 rope_theta; both find their own spelling of dtype."""
    run = make_run(tmp_path / "run", None, make_model(50, rope_theta=777.0))
    arguments = ["--format", "hf", "--dtype", "bfloat16", "--out", str(tmp_path / "llama")]
    main(["export", str(run), *arguments])
    config = json.loads((tmp_path / "llama" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 777.0
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    weights = load_file(tmp_path / "llama" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    assert model.dtype == torch.bfloat16


def test_what_transformers_4_reads_is_enough(tmp_path):
    """Without the keys that only transformers 5 knows, the rest says the same."""
    stretched = {"rope_scaling": "linear", "rope_scaling_factor": 2.5, "rope_theta": 777.0}
    model = make_model(50, **stretched)
    run = make_run(tmp_path / "run", None, model)
    main(["export", str(run), "--format", "hf", "--out", str(tmp_path / "llama")])
    path = tmp_path / "llama" / "config.json"
    config = json.loads(path.read_text())
    for key in ("rope_parameters", "dtype"):
        del config[key]
    path.write_text(json.dumps(config))
    ids = list(range(30))
    with torch.no_grad():
        logits = logits_of(tmp_path / "llama", ids)[1]
        torch.testing.assert_close(logits, model(torch.tensor(ids)), rtol=0, atol=1e-4)


def test_weights_alone_have_our_names(tmp_path, capsys):
    model = make_model(50)
    run = make_run(tmp_path / "run", None, model)
    for out in ("w.safetensors", "folder"):
        path = tmp_path / out
        assert main(["export", str(run), "--format", "safetensors", "--out", str(path)]) == 0
        assert capsys.readouterr().err == ""
        path = path / "model.safetensors" if path.is_dir() else path
        weights = load_file(path)
        expected = model.state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        with safe_open(path, "pt") as file:
            assert json.loads(file.metadata()["model_config"])["num_heads"] == 4


def test_the_checkpoint_is_the_one_that_was_asked_for(tmp_path, capsys):
    models = {step: make_model(50, seed=step) for step in (1, 2, 3)}
    run = RunDirectory(make_run(tmp_path / "run", None, models[1], step=1))
    optimizer = torch.optim.SGD(models[2].parameters())
    run.write_checkpoint(pack(models[2], optimizer, 2))
    run.write_best(pack(models[3], optimizer, 3))
    for which, step in (("best", 3), ("last", 2), ("1", 1), ("2", 2), ("3", 3)):
        out = tmp_path / f"{which}.safetensors"
        arguments = ["--format", "safetensors", "--out", str(out), "--checkpoint", which]
        assert main(["export", str(run.path), *arguments]) == 0
        weights = load_file(out)
        assert torch.equal(weights["lm_head.weight"], models[step].lm_head.weight)
    capsys.readouterr()
    arguments = ["--format", "safetensors", "--out", str(tmp_path / "x"), "--checkpoint", "7"]
    assert main(["export", str(run.path), *arguments]) == 1
    assert "no" in (line := one_line(capsys)) or "not contain" in line
    assert "step 7" in line
    assert "1, 2" in line
    assert not (tmp_path / "x").exists()


def test_wrong_calls_are_one_line(tmp_path, capsys):
    run = make_run(tmp_path / "run", None, make_model(50))
    out = tmp_path / "out"
    export = ["export", str(run), "--format", "hf", "--out"]
    assert main(["export", str(tmp_path), "--format", "hf", "--out", str(out)]) == 1
    assert "is not a run directory" in one_line(capsys)
    assert main([*export, str(out), "--dtype", "q8_0"]) == 2
    assert "float32, bfloat16, float16, not q8_0" in one_line(capsys)
    with pytest.raises(SystemExit, match="2"):
        main([*export, str(out), "--checkpoint", "first"])
    assert "is not best, last or the number of a step" in one_line(capsys)
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    assert main([*export, str(out)]) == 2
    assert "is there already" in one_line(capsys)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert main([*export, str(run / "config.toml" / "x")]) == 1
    assert "config.toml" in one_line(capsys)


@pytest.mark.parametrize(
    "choice",
    [
        {"norm": "post"},
        {"norm": "none"},
        {"positions": "none"},
        {"ffn": "silu"},
        {"qk_norm": True},
        {"logit_softcap": 30.0},
        {"residual_scalars": True, "value_embeddings": True},
    ],
    ids=str,
)
def test_what_no_llama_has_is_refused_by_name(tmp_path, capsys, choice):
    run = make_run(tmp_path / "run", None, make_model(50, **choice))
    for format in ("hf", "gguf"):
        arguments = ["--format", format, "--out", str(tmp_path / "out")]
        assert main(["export", str(run), *arguments]) == 2
        said = one_line(capsys)
        assert all(f"model.{name} = {value!r}" in said for name, value in choice.items())
        assert not (tmp_path / "out").exists()
    arguments = ["--format", "safetensors", "--out", str(tmp_path / "w.safetensors")]
    assert main(["export", str(run), *arguments]) == 0
    assert load_file(tmp_path / "w.safetensors").keys() == load_run(run)[1].state_dict().keys()


def test_every_choice_of_a_model_is_known_or_refused(tmp_path):
    """A choice that is added later is refused until somebody has thought about it."""
    from cs336lm.exchange.llama import _ANY_VALUE

    refused = {field.name for field in dataclasses.fields(ModelConfig)} - _ANY_VALUE
    assert {"norm", "positions", "ffn", "qk_norm", "logit_softcap"} <= refused


def test_a_failure_leaves_nothing_behind(tmp_path, capsys):
    model = make_model(50)
    with torch.no_grad():
        model.lm_head.weight[3, 4] = 70_000.0
    run = make_run(tmp_path / "run", None, model)
    out = tmp_path / "llama"
    arguments = ["--format", "hf", "--dtype", "float16", "--out", str(out)]
    assert main(["export", str(run), *arguments]) == 1
    assert "7e+04, which float16 cannot" in one_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_tokenizer_too_large_for_the_model_is_refused(tmp_path, capsys):
    run = make_run(tmp_path / "run", make_tokenizer(), make_model(100))
    arguments = ["--format", "hf", "--out", str(tmp_path / "llama")]
    assert main(["export", str(run), *arguments]) == 1
    assert "trained with another tokenizer" in one_line(capsys)


def test_the_exported_run_is_left_as_it_was(tmp_path):
    run = make_run(tmp_path / "run", make_tokenizer(), make_model(263))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    main(["export", str(run), "--format", "hf", "--out", str(tmp_path / "llama")])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert load_run(run)[1].config.vocab_size == 263
