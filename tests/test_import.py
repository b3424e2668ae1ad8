"""``cs336lm import``: Llamas that transformers makes, of many shapes, and what is none."""

import json
import shutil

import pytest
import tiny_run  # noqa: F401  (a tiny model is quickest on one thread)
import torch
import transformers
from cs336lm import Tokenizer, load_run
from cs336lm.cli.main import main
from cs336lm.training.run_directory import RunDirectory
from exchanged import END, make_tokenizer, one_line
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

transformers.utils.logging.disable_progress_bar()

BASE = {
    "vocab_size": 70,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SHAPES = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "one head of keys": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "one head": {"num_attention_heads": 1, "num_hidden_layers": 1},
    "heads of two": {"num_attention_heads": 16, "num_key_value_heads": 8},
    "another eps": {"rms_norm_eps": 1e-2},
    "another theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 9.0, "factor": 3.0}},
    "llama 3": {"rope_parameters": LLAMA3, "num_key_value_heads": 2},
    "head_dim said": {"head_dim": 8},
    "wide": {"intermediate_size": 101, "vocab_size": 303},
}


def make_llama(folder, *, dtype=torch.float32, shard=None, **shape) -> LlamaForCausalLM:
    """A random model, saved by transformers, with gains that are not 1."""
    torch.manual_seed(len(shape))
    model = LlamaForCausalLM(LlamaConfig(**BASE | shape)).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)
            assert parameter.dtype == dtype, name
    model.save_pretrained(folder, **({} if shard is None else {"max_shard_size": shard}))
    return model


def same_logits(run, theirs, count=40):
    ids = torch.randint(0, theirs.config.vocab_size, (2, count))
    with torch.no_grad():
        _, model, _ = load_run(run)
        torch.testing.assert_close(model(ids), theirs(ids).logits.float(), rtol=0, atol=1e-4)
    return model


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_llamas_of_many_shapes(tmp_path, shape):
    theirs = make_llama(tmp_path / "llama", **shape)
    run = tmp_path / "run"
    assert main(["import", str(tmp_path / "llama"), "--out", str(run)]) == 0
    model = same_logits(run, theirs)
    assert model.config.tie_embeddings == shape.get("tie_word_embeddings", False)
    # And out again: the same weights, bit for bit.
    arguments = ["--format", "hf", "--out", str(tmp_path / "again")]
    assert main(["export", str(run), *arguments]) == 0
    before = load_file(tmp_path / "llama" / "model.safetensors")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    same_logits(run, again)


def test_as_transformers_4_wrote_it(tmp_path):
    theirs = make_llama(tmp_path / "llama", rope_parameters=LLAMA3)
    path = tmp_path / "llama" / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    path.write_text(json.dumps(config))
    assert main(["import", str(tmp_path / "llama"), "--out", str(tmp_path / "run")]) == 0
    same_logits(tmp_path / "run", theirs)
    # Older still: "type", and no head_dim.
    config["rope_scaling"] = {"type": "linear", "factor": 3.0}
    del config["head_dim"]
    path.write_text(json.dumps(config))
    assert main(["import", str(tmp_path / "llama"), "--out", str(tmp_path / "older")]) == 0
    model = load_run(tmp_path / "older")[1]
    assert (model.config.rope_scaling, model.config.rope_scaling_factor) == ("linear", 3.0)
    assert model.config.rope_theta == LLAMA3["rope_theta"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_keep_their_precision(tmp_path, dtype):
    make_llama(tmp_path / "llama", dtype=dtype)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float32)
    assert main(["import", str(tmp_path / "llama"), "--out", str(tmp_path / "run")]) == 0
    same_logits(tmp_path / "run", theirs)
    state = torch.load(RunDirectory(tmp_path / "run").pick_checkpoint("last"))
    assert {weight.dtype for weight in state["model"].values()} == {dtype}


def test_shards_and_their_index(tmp_path, capsys):
    folder = tmp_path / "llama"
    theirs = make_llama(folder, shard="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 0
    same_logits(tmp_path / "run", theirs)
    capsys.readouterr()

    def refused(says):
        arguments = [str(folder), "--no-tokenizer", "--out", str(tmp_path / "x")]
        assert main(["import", *arguments]) == 1
        assert says in one_line(capsys)
        assert not (tmp_path / "x").exists()

    index = folder / "model.safetensors.index.json"
    whole = index.read_text()
    index.write_text(whole.replace(shards[0].name, "../" + shards[0].name))
    refused("is not a file beside it")
    index.write_text(whole[:100])
    refused("is not an index of safetensors files")
    places = json.loads(whole)
    places["weight_map"]["model.norm.weight"] = next(
        shard.name for shard in shards if "model.norm.weight" not in load_file(shard)
    )
    index.write_text(json.dumps(places))
    refused("lacks 'model.norm.weight', which")
    index.write_text(whole)
    shards[1].unlink()
    refused(f"{shards[1]}: No such file")


def test_a_tokenizer_comes_along(tmp_path, capsys):
    tokenizer = make_tokenizer()
    make_llama(tmp_path / "llama", vocab_size=270)
    tokenizer.save(tmp_path / "llama")
    run = tmp_path / "run"
    assert main(["import", str(tmp_path / "llama"), "--out", str(run)]) == 0
    assert capsys.readouterr().err == ""
    assert load_run(run)[2] == tokenizer
    arguments = ["--prompt", "the", "--max-new-tokens", "8", "--temperature", "0", "--stop", "##"]
    assert main(["generate", str(run), *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 8
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 40)
    tokenizer.encode_files(tmp_path / "text.txt", tmp_path / "text.npy")
    data = str(tmp_path / "text.npy")
    assert main(["evaluate", str(run), "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] > 0
    sizes = ["--train.steps", "1", "--data.batch-size", "2", "--train.device", "cpu"]
    tuned = ["--init-from", str(run), "--run-dir", str(tmp_path / "tuned"), "--data.train", data]
    assert main(["train", *tuned, *sizes]) == 0
    before, after = load_run(run)[1], load_run(tmp_path / "tuned")[1]
    assert after.config == before.config
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)
    assert torch.allclose(before.lm_head.weight, after.lm_head.weight, atol=5e-3)
    capsys.readouterr()
    assert main(["train", "--resume", "--run-dir", str(run), "--data.train", data, *sizes]) == 2
    assert "a new run can start from its weights with --init-from" in one_line(capsys)


def test_the_end_of_its_texts_is_said(tmp_path, capsys):
    tokenizer = make_tokenizer(special=("<s>", "</s>"))
    make_llama(tmp_path / "llama", vocab_size=270, eos_token_id=tokenizer.token_to_id("</s>"))
    tokenizer.save(tmp_path / "llama")
    assert main(["import", str(tmp_path / "llama"), "--out", str(tmp_path / "run")]) == 0
    assert one_line(capsys).endswith("generate --stop '</s>'")


def test_a_context_of_ones_own(tmp_path):
    theirs = make_llama(tmp_path / "llama")
    arguments = ["--out", str(tmp_path / "run"), "--context-length", "16"]
    assert main(["import", str(tmp_path / "llama"), *arguments]) == 0
    assert same_logits(tmp_path / "run", theirs, count=16).config.context_length == 16


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attention_bias": True}, "attention_bias = True"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"head_dim": 16}, "head_dim = 16"),
        ({"sliding_window": 128}, "sliding_window = 128"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layers of sliding_attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}, "rope_parameters": None}, "'yarn'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "needs factor, which is missing"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "one RoPE for all layers"),
        ({"model_type": "mistral"}, "'mistral': only LlamaForCausalLM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "'LlamaForSequence"),
        ({"mlp_bias": True, "hidden_act": "relu"}, "hidden_act = 'relu'; nor mlp_bias = True"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "wide"}, "config.json: "),
        ({"num_attention_heads": 5, "head_dim": None}, "not divisible"),
        ({"num_key_value_heads": 3}, "num_kv_heads"),
        (
            {"vocab_size": 71},
            "embed_tokens.weight has the shape (70, 32), but by config",
        ),
        ({"num_hidden_layers": 3}, "lacks model.layers.2."),
        ({"num_hidden_layers": 1}, "holds model.layers.1."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, capsys, change, says):
    folder = tmp_path / "llama"
    make_llama(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert main(["import", str(folder), "--no-tokenizer", "--out", str(tmp_path / "run")]) == 1
    assert says in one_line(capsys)
    assert not (tmp_path / "run").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama"]


def test_damaged_and_pickled_weights(tmp_path, capsys):
    folder, out = tmp_path / "llama", tmp_path / "run"
    make_llama(folder)
    path = folder / "model.safetensors"
    weights = {name: weight.clone() for name, weight in load_file(path).items()}  # not mapped

    def refused(says):
        assert main(["import", str(folder), "--no-tokenizer", "--out", str(out)]) == 1
        assert says in one_line(capsys)
        assert not out.exists()

    path.write_bytes(path.read_bytes()[:-100])
    refused("model.safetensors is truncated, damaged or not a safetensors file")
    path.write_bytes(b"PK\3\4" + b"x" * 50)
    refused("truncated, damaged or not a safetensors file")
    save_file({**weights, "model.layers.0.mlp.up_proj.bias": torch.zeros(48)}, path)
    refused("holds model.layers.0.mlp.up_proj.bias, which no Llama here has")
    few = dict(weights)
    del few["model.layers.1.self_attn.k_proj.weight"]
    save_file(few, path)
    refused("lacks model.layers.1.self_attn.k_proj.weight, which config.json promises")
    save_file({**weights, "model.norm.weight": torch.ones(33)}, path)
    refused("model.norm.weight has the shape (33,), but by config.json it is (32,)")
    save_file({**weights, "model.norm.weight": torch.ones(32, dtype=torch.int8)}, path)
    refused("model.norm.weight holds torch.int8")
    path.unlink()
    refused("does not contain model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    refused("holds its weights in pytorch_model.bin, which could run code")
    (folder / "config.json").write_text("[1]")
    refused("is not a JSON object")
    (folder / "config.json").write_text("{")
    refused("is not valid JSON")
    (folder / "config.json").unlink()
    refused("does not contain a model: there is no config.json")
    shutil.rmtree(folder)
    refused("No such file or directory")


def test_what_a_tied_file_says_of_the_head_is_not_looked_at(tmp_path):
    theirs = make_llama(tmp_path / "llama", tie_word_embeddings=True)
    path = tmp_path / "llama" / "model.safetensors"
    weights = {name: weight.clone() for name, weight in load_file(path).items()}  # not mapped
    weights["lm_head.weight"] = torch.zeros(70, 32)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    save_file(weights, path, {"format": "pt"})
    assert main(["import", str(tmp_path / "llama"), "--out", str(tmp_path / "run")]) == 0
    same_logits(tmp_path / "run", theirs)


def test_tokenizers_that_do_not_fit(tmp_path, capsys):
    folder, run = tmp_path / "llama", tmp_path / "run"
    make_llama(folder)
    tokenizer = make_tokenizer()
    tokenizer.save(folder)
    imported = ["import", str(folder), "--out", str(run)]
    assert main(imported) == 1
    assert "the tokenizer has ids up to 262, the model knows only 70" in one_line(capsys)
    (folder / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    assert main(imported) == 1
    assert one_line(capsys).endswith("--no-tokenizer imports the model without it")
    assert not run.exists()
    assert main([*imported, "--no-tokenizer"]) == 0
    assert load_run(run)[2] is None
    run2 = tmp_path / "run2"
    run2.mkdir()
    (run2 / "notes").write_text("mine")
    assert main(["import", str(folder), "--no-tokenizer", "--out", str(run2)]) == 2
    assert (run2 / "notes").read_text() == "mine"


def test_a_folder_of_vocab_json_alone_may_say_its_pattern(tmp_path):
    folder = tmp_path / "llama"
    make_llama(folder, vocab_size=270)
    tokenizer = make_tokenizer(pattern="gpt4")
    tokenizer.save(folder)
    (folder / "tokenizer.json").unlink()
    imported = ["import", str(folder), "--out", str(tmp_path / "run"), "--pattern", "gpt4"]
    assert main(imported) == 0
    assert Tokenizer.load(tmp_path / "run" / "tokenizer") == tokenizer
    assert load_run(tmp_path / "run")[2].special_tokens == [END]
