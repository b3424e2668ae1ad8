"""``cs336lm account``: the handout's known values, and answers without PyTorch."""

import json
import subprocess
import sys

import pytest
from cs336lm.cli.main import main


def account(capsys, *argv):
    assert main(["account", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_known_values_of_the_handouts(capsys):
    """GPT-2 XL: 2025's with d_ff = 6,400, 2026's with 4,288."""
    first = account(capsys, "--preset", "gpt2-xl")
    assert first["parameters"]["total"] == 2_127_057_600
    assert first["forward_flops"]["total"] == pytest.approx(4.513e12, rel=2e-4)
    assert first["memory"]["parameters"] == 4 * 2_127_057_600
    later = ["--device", "h100-tf32", "--mfu", "0.5", "--steps", "400000", "--batch", "1024"]
    second = account(capsys, "--preset", "gpt2-xl-2026", *later)
    assert second["parameters"]["total"] == 1_640_452_800
    assert second["forward_flops"]["total"] == pytest.approx(3.517e12, rel=2e-4)
    assert second["training"]["peak_flops"] == 495e12
    assert second["training"]["hours"] == pytest.approx(4850, abs=1)


def test_shares_move_to_attention_where_the_context_is_long(capsys):
    """Of XL at 16,384 tokens attention's own products are more than half."""
    flops = account(capsys, "--preset", "gpt2-xl", "--tokens", "16384")["products"]
    own = sum(p["flops"] for p in flops if p["name"] in ("attn.Q K^T", "attn.weights V"))
    # By hand: 2 products of 2 T^2 d in each of 48 layers.
    assert own == 2 * 2 * 16_384**2 * 1600 * 48
    assert own / sum(p["flops"] for p in flops) > 0.5


def test_flags_and_files_change_the_shape(capsys, tmp_path):
    (tmp_path / "run.toml").write_text("[model]\nvocab_size = 100\nd_model = 32\nnum_heads = 4\n")
    flags = ["--model.num-layers", "2", "--model.context-length", "8", "--model.tie-embeddings"]
    found = account(capsys, "--config", str(tmp_path / "run.toml"), *flags, "--batch", "3")
    assert found["parameters"]["lm_head"] == 0
    assert found["parameters"]["token_embeddings"] == 3200
    assert found["model"]["num_layers"] == 2
    parts = [found["memory"][n] for n in ("parameters", "gradients", "optimizer", "activations")]
    assert found["memory"]["total"] == sum(parts)
    assert (
        found["step_flops"]
        == 9 * found["forward_flops"]["total"] + 14 * found["parameters"]["total"]
    )


def test_tables_for_people(capsys):
    assert main(["account", "--preset", "gpt2-small", "--device", "1e15", "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert "| attn.q_proj " in shown
    assert "## Time to train" in shown
    assert main(["account", "--preset", "gpt2-small"]) == 0
    assert "largest batch in 80.00 GB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--model.vocab-size"),
        (["--preset", "gpt2-xxl"], "did you mean gpt2-xl"),
        (["--preset", "gpt2-xl", "--device", "h100"], "did you mean h100-tf32"),
        (["--preset", "gpt2-xl", "--device", "abacus"], "operations a second"),
        (["--preset", "gpt2-xl", "--model.num-heads", "7"], "num_heads"),
    ],
)
def test_a_wrong_call_is_one_line(capsys, argv, message):
    assert main(["account", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_it_answers_without_pytorch():
    code = (
        "import sys; from cs336lm.cli.main import main;"
        "main(['account', '--preset', 'gpt2-xl', '--json']); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "False"
