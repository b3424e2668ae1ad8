"""``cs336lm export --format gguf``, read back by gguf, by transformers and by llama.cpp."""

import json
import sys
import urllib.request

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from cs336lm import Tokenizer
from cs336lm.cli.main import main
from cs336lm.exchange.gguf_tokenizer import _spell
from exchanged import END, TEXT, greedy, make_model, make_run, make_tokenizer, one_line
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

transformers.utils.logging.disable_progress_bar()

SHAPES = {
    "plain": {},
    "grouped": {"num_kv_heads": 2},
    "tied, padded": {"tie_embeddings": True, "vocab_size": 300},
    "another theta and eps": {"rope_theta": 500.0, "rms_norm_eps": 1e-3},
}
LLAMA3 = {
    "rope_scaling": "llama3",
    "rope_scaling_factor": 8.0,
    "rope_original_context_length": 16,
    "rope_theta": 50.0,
}


def export(tmp_path, model, tokenizer=None, *arguments):
    run = make_run(tmp_path / "run", tokenizer, model)
    out = tmp_path / "model.gguf"
    assert main(["export", str(run), "--format", "gguf", "--out", str(out), *arguments]) == 0
    return out


def value(reader, key):
    return reader.fields[key].contents()


@pytest.mark.parametrize(
    ("dtype", "kind", "tolerance"),
    [
        ("float32", "F32", 0),
        ("float16", "F16", 2**-11),
        ("bfloat16", "BF16", 2**-8),
        ("q8_0", "Q8_0", None),
    ],
)
def test_every_tensor_is_read_back(tmp_path, dtype, kind, tolerance):
    model = make_model(263)
    reader = GGUFReader(export(tmp_path, model, make_tokenizer(), "--dtype", dtype))
    assert value(reader, "general.file_type") == {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7}[kind]
    expected = {
        "token_embd": "token_embeddings",
        "output_norm": "ln_final",
        "output": "lm_head",
    }
    for layer in (0, 1):
        for theirs, ours in {
            "attn_norm": "ln1",
            "attn_q": "attn.q_proj",
            "attn_k": "attn.k_proj",
            "attn_v": "attn.v_proj",
            "attn_output": "attn.output_proj",
            "ffn_norm": "ln2",
            "ffn_gate": "ffn.w1",
            "ffn_up": "ffn.w3",
            "ffn_down": "ffn.w2",
        }.items():
            expected[f"blk.{layer}.{theirs}"] = f"layers.{layer}.{ours}"
    weights = model.state_dict()
    assert {tensor.name for tensor in reader.tensors} == {f"{name}.weight" for name in expected}
    for tensor in reader.tensors:
        weight = weights[expected[tensor.name.removesuffix(".weight")] + ".weight"].numpy()
        assert tuple(reversed(tensor.shape.tolist())) == weight.shape
        assert tensor.tensor_type.name == ("F32" if weight.ndim == 1 else kind)
        found = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        if weight.ndim == 1:
            assert np.array_equal(found, weight)
        elif tolerance is None:  # half of 127 steps a block, their size in float16
            steps = np.abs(weight.reshape(-1, 32)).max(1, keepdims=True) / 127
            assert (np.abs(found - weight).reshape(-1, 32) <= 0.57 * steps).all()
        else:
            assert np.allclose(found, weight, rtol=tolerance, atol=1e-7 if tolerance else 0)


def test_what_the_file_says_of_the_model(tmp_path):
    model = make_model(270, num_kv_heads=2, rope_theta=500.0, rms_norm_eps=1e-3)
    reader = GGUFReader(export(tmp_path, model, make_tokenizer()))
    said = {
        "general.architecture": "llama",
        "llama.vocab_size": 263,  # of 270, what the tokenizer has
        "llama.context_length": 32,
        "llama.embedding_length": 32,
        "llama.block_count": 2,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 500.0,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-3),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 262,
        "tokenizer.ggml.eos_token_id": 262,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {key: value(reader, key) for key in said} == said
    tokens = value(reader, "tokenizer.ggml.tokens")
    types = value(reader, "tokenizer.ggml.token_type")
    assert tokens[262:] == [END]
    assert types == [1] * 262 + [3]
    assert value(reader, "tokenizer.ggml.merges")[:3] == ["t h", "th e", "Ġ the"]


def test_ids_of_no_token_within_the_vocabulary_are_unused(tmp_path):
    tokenizer = make_tokenizer(special={END: 265})
    reader = GGUFReader(export(tmp_path, make_model(300), tokenizer))
    assert value(reader, "tokenizer.ggml.tokens")[262:] == ["[PAD262]", "[PAD263]", "[PAD264]", END]
    assert value(reader, "tokenizer.ggml.token_type")[262:] == [5, 5, 5, 3]
    assert value(reader, "tokenizer.ggml.eos_token_id") == 265
    assert value(reader, "llama.vocab_size") == 266


def test_tokens_are_spelled_as_everywhere():
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert sorted(_spell(bytes([byte])) for byte in range(256)) == alphabet
    theirs = make_tokenizer().to_hf()
    for token, id in theirs.get_vocab().items():
        assert id == 262 or _spell(make_tokenizer().vocab[id]) == token


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "gpt4o", "llama3", "qwen2"])
def test_transformers_opens_it(tmp_path, shape, pattern):
    tokenizer = make_tokenizer(pattern=pattern)
    model = make_model(**{"vocab_size": tokenizer.vocab_size} | shape)
    export(tmp_path, model, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
    ids = tokenizer.encode(TEXT)[:30]
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0]
        expected = model(torch.tensor(ids))[:, : tokenizer.vocab_size]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    library = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    sample = f"the cat's naïve 漢字{END}  \n 12345 ON on"
    assert library(sample)["input_ids"] == tokenizer.encode(sample)


def test_how_rope_is_stretched(tmp_path):
    (tmp_path / "a").mkdir()
    linear = make_model(50, rope_scaling="linear", rope_scaling_factor=2.5)
    reader = GGUFReader(export(tmp_path / "a", linear))
    assert value(reader, "llama.rope.scaling.type") == "linear"
    assert value(reader, "llama.rope.scaling.factor") == 2.5
    reader = GGUFReader(export(tmp_path, make_model(50, **LLAMA3)))
    (found,) = [tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_attention_heads=4,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 50.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    )
    scaled, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    unscaled = 50.0 ** -(torch.arange(0, 8, 2) / 8)
    assert np.allclose(found, (unscaled / scaled).numpy(), rtol=1e-5)


def test_rows_that_eight_bits_do_not_fit_are_said(tmp_path, capsys):
    out = export(tmp_path, make_model(263, d_ff=48), make_tokenizer(), "--dtype", "q8_0")
    assert one_line(capsys).endswith(
        "blk.0.ffn_down.weight and 1 more in float16: q8_0 takes rows of a multiple of 32"
    )
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(out).tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


def test_a_run_of_ids_alone(tmp_path, capsys):
    reader = GGUFReader(export(tmp_path, make_model(50)))
    assert "no tokenizer" in one_line(capsys) or "none was written" in capsys.readouterr().err
    assert value(reader, "tokenizer.ggml.model") == "none"
    assert value(reader, "llama.vocab_size") == 50


def test_where_llama_cpps_pattern_differs_a_note_says_so(tmp_path, capsys):
    for pattern, name, says in (("gpt4", "dbrx", "line break"), ("gpt4o", "gpt-4o", "ASCII")):
        (tmp_path / pattern).mkdir()
        out = export(tmp_path / pattern, make_model(263), make_tokenizer(pattern=pattern))
        assert says in one_line(capsys)
        assert value(GGUFReader(out), "tokenizer.ggml.pre") == name


def test_what_the_format_cannot_hold_is_refused(tmp_path, capsys):
    def refused(name, tokenizer, model, says, status, *arguments):
        run = make_run(tmp_path / name, tokenizer, model)
        out = tmp_path / f"{name}.gguf"
        command = ["export", str(run), "--format", "gguf", "--out", str(out), *arguments]
        assert main(command) == status
        assert says in one_line(capsys)
        assert sorted(path.name for path in tmp_path.glob("*.gguf*")) == []
        assert list(tmp_path.glob(".*")) == []

    model = make_model(270)
    refused("own", make_tokenizer(pattern=r"\w+|\W"), model, r"the pattern '\\w+|\\W'", 2)
    refused("endless", make_tokenizer(special=()), model, "has no <|endoftext|>", 1)
    refused("small", make_tokenizer(), make_model(50), "trained with another tokenizer", 1)
    ranks = [bytes([i]) for i in range(256)] + [b"abc", b"ab"]
    (tmp_path / "x.tiktoken").write_bytes(tiktoken_file(ranks))
    whole = Tokenizer.load(tmp_path / "x.tiktoken", [END], pattern="gpt2")
    refused("whole", whole, model, "takes words that are tokens whole", 1)
    with torch.no_grad():
        model.lm_head.weight[3, 4] = 1e8
    for dtype in ("float16", "q8_0"):
        refused(dtype, make_tokenizer(), model, "1e+08", 1, "--dtype", dtype)


def tiktoken_file(tokens):
    from cs336lm.text.conversions import tiktoken_lines

    return tiktoken_lines({token: rank for rank, token in enumerate(tokens)})


def test_a_package_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "run", None, make_model(50))
    monkeypatch.setitem(sys.modules, "gguf", None)
    arguments = ["--format", "gguf", "--out", str(tmp_path / "x.gguf")]
    assert main(["export", str(run), *arguments]) == 2
    assert "pip install 'cs336lm[gguf]'" in one_line(capsys)


LLAMA_CPP = {
    "plain": ({}, "gpt2", "float32"),
    "grouped": ({"num_kv_heads": 1, "rope_theta": 500.0}, "gpt2", "float32"),
    "tied, padded": ({"tie_embeddings": True, "vocab_size": 270}, "gpt4", "float32"),
    "linear": ({"rope_scaling": "linear", "rope_scaling_factor": 2.5}, "gpt4o", "float32"),
    "llama 3": (LLAMA3, "gpt2", "float32"),
    "half": ({}, "gpt2", "float16"),
    "bfloat16": ({}, "gpt2", "bfloat16"),
    "eight bits": ({}, "gpt2", "q8_0"),
}
# Of log-probabilities: llama.cpp keeps keys and values in float16.
TOLERANCES = {"float32": 3e-3, "float16": 3e-3, "bfloat16": 2e-2, "q8_0": 5e-2}


@pytest.fixture(params=LLAMA_CPP.values(), ids=LLAMA_CPP.keys())
def in_llama_cpp(request, tmp_path):
    """(file, tokenizer, model, the ids of a text and greedy ids, as we have them, tolerance)."""
    shape, pattern, dtype = request.param
    tokenizer = make_tokenizer(pattern=pattern)
    wide = {"context_length": 256, "d_model": 64, "num_heads": 2}
    model = make_model(**{"vocab_size": tokenizer.vocab_size} | wide | shape)
    out = export(tmp_path, model, tokenizer, "--dtype", dtype)
    return out, tokenizer, model, TOLERANCES[dtype]


SAMPLE = f"the cat's naïve 漢字{END}  \n 12345 ON the mat\n\n"


def test_llama_cpp_generates_what_we_generate(in_llama_cpp):
    """In llama-cpp-python, which is compiled from source and may not be there."""
    llama_cpp = pytest.importorskip("llama_cpp")
    out, tokenizer, model, tolerance = in_llama_cpp
    theirs = llama_cpp.Llama(str(out), n_ctx=256, verbose=False, logits_all=True)
    ids = theirs.tokenize(SAMPLE.encode(), add_bos=False, special=True)
    assert ids == tokenizer.encode(SAMPLE)
    prompt = tokenizer.encode(TEXT)[:40]
    theirs.eval(prompt)
    with torch.no_grad():
        logits = model(torch.tensor(prompt))[:, : tokenizer.vocab_size]
    found = torch.tensor(theirs.scores[: len(prompt)])
    torch.testing.assert_close(
        found.log_softmax(-1), logits.log_softmax(-1), rtol=0, atol=tolerance
    )
    theirs.reset()
    tokens = theirs.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0)
    expected = greedy(model, prompt, 12, tokenizer.vocab_size)[len(prompt) :]
    assert [next(tokens) for _ in range(12)] == expected


def test_llama_cpps_server_generates_what_we_generate(in_llama_cpp):
    """In xllamacpp, which has wheels of llama.cpp and its server."""
    xllamacpp = pytest.importorskip("xllamacpp")
    out, tokenizer, model, tolerance = in_llama_cpp
    settings = xllamacpp.CommonParams()
    settings.model.path = str(out)
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = 256, 1, 0
    settings.warmup = False
    settings.cpuparams.n_threads = 1
    server = xllamacpp.Server(settings)

    def post(path, **body):
        request = urllib.request.Request(
            server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    found = post("/tokenize", content=SAMPLE, add_special=False, parse_special=True)
    assert found["tokens"] == tokenizer.encode(SAMPLE)
    prompt = tokenizer.encode(TEXT)[:40]
    how = {"temperature": 0, "top_k": 1, "repeat_penalty": 1.0, "cache_prompt": False}
    answer = post("/completion", prompt=prompt, n_predict=12, n_probs=5, return_tokens=True, **how)
    expected = greedy(model, prompt, 12, tokenizer.vocab_size)[len(prompt) :]
    assert answer["tokens"] == expected
    with torch.no_grad():
        ours = model(torch.tensor(prompt))[-1, : tokenizer.vocab_size].log_softmax(-1)
    for likely in answer["completion_probabilities"][0]["top_logprobs"]:
        assert likely["logprob"] == pytest.approx(ours[likely["id"]].item(), abs=tolerance)
