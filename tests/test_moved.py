"""Module paths of version 0.1.0 before the package had rooms: each public name is still there."""

import pickle
import subprocess
import sys
from importlib import import_module

import pytest
from cs336lm.moved import MOVED, RENAMED

# Left out are parts of algorithms that have other parts now: layers.project, the rotations of
# fused, reporter.refuse_divergence, which is a method of the Reporter, and optim.Closure, a type.
NAMES = {
    "accounting": "matmul_parameters peak_bandwidth peak_flops training_flops_per_token",
    "batch_size": "LargestBatch find_batch_size largest_that",
    "checkpoint": "BackgroundWriter State atomic_write load_checkpoint pack read_state "
    "save_checkpoint snapshot unpack unpack_model write_state",
    "chunked_loss": "CHUNK_ELEMENTS linear_cross_entropy",
    "config": "Config DataConfig OptimConfig SECTIONS TrainConfig config_from_tables dump_config "
    "load_config save_config",
    "data": "BatchLoader TokenDataset gather_windows get_batch validation_starts",
    "decoding": "CompiledStep Decoder SEQUENCES_BY_SUMS",
    "devices": "LateValues Mark choose_device choose_dtype keep_freed_memory",
    "distributed": "Mode ParallelModel StopVote World gather_weights",
    "errors": "UsageError",
    "evaluation": "Evaluation evaluate",
    "fp8": "fp8_linear require_fp8",
    "functional": "at_least_float32 cross_entropy perplexity scaled_dot_product_attention silu "
    "softmax",
    "fused": "gated_silu rms_norm",
    "generation": "END_OF_TEXT Piece check_vocabularies encode_prompt generate generate_ids "
    "has_end_of_text stream window_start",
    "inputs": "input_files",
    "kv_cache": "KVCache LayerCache",
    "layers": "Device Embedding Linear MultiHeadSelfAttention RMSNorm RotaryPositionalEmbedding "
    "SwiGLU fill_truncated_normal",
    "model": "TransformerBlock TransformerLM",
    "model_config": "ModelConfig default_d_ff",
    "optim": "SGD AdaGrad AdamW clip_gradients",
    "plotting": "Curve FORMATS Points Scale plot_curves read_curve smoothed",
    "profiling": "PHASES StepProfiler",
    "reporter": "Reporter",
    "run_directory": "RunDirectory Which load_run",
    "sampling": "Sampler",
    "schedule": "SCHEDULES Schedule WSD_DECAY_SHARE lr_constant_schedule lr_cosine_schedule "
    "lr_linear_schedule lr_wsd_schedule",
    "sharded_checkpoint": "load_sharded save_sharded",
    "stop_signals": "StopSignals",
    "stories": "END_OF_TEXT SEPARATOR Entropy corpus entropy log_probability read_story stories "
    "story_grammar",
    "stories.analysis": "Measure ambiguities measure",
    "stories.grammar": "Choice Draw Node Nodes Pick Record Say Table compile_rules tell",
    "stories.plots": "RULES",
    "stories.reading": "Reading",
    "stories.words": "BEASTS BOY BUILDINGS COLOURS CREATURES ELDERS GIFTS GIRL HELPERS NAMES "
    "NOISES PLACES PRIZES SEEDS SKILLS STRANGERS TABLES TOYS TRAPS TREATS",
    "token_files": "Sidecar TokenArray open_token_files",
    "tokenizer": "EncodedFile Path Progress Tokenizer count_pretokens train_bpe",
    "tracking": "ConsoleTracker JsonlTracker Record TRACKERS TensorBoardTracker Tracker "
    "WandbTracker read_metrics require_installed",
    "trainer": "Progress TrainResult Trainer build_optimizer",
    "training_data": "TrainingData open_data",
}


@pytest.mark.parametrize("module", NAMES)
def test_every_public_name_is_where_it_was(module):
    old = import_module(f"cs336lm.{module}")
    homes = [import_module(f"cs336lm.{home}") for home in MOVED.get(module, (module,))]
    for name in NAMES[module].split():
        new = RENAMED.get(f"{module}.{name}", name)
        values = [getattr(home, new) for home in homes if hasattr(home, new)]
        assert getattr(old, name) is values[0]


def test_every_module_that_has_moved_is_in_the_table():
    rooms = {"data", "errors", "evaluation", "generation", "model", "optim"}  # still there
    assert MOVED.keys() == NAMES.keys() - rooms


def test_a_name_that_never_was_is_missed_as_in_any_module():
    with pytest.raises(ImportError, match=r"cannot import name 'Lienar' from 'cs336lm\.layers'"):
        from cs336lm.layers import Lienar  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'cs336lm\.lairs'"):
        import_module("cs336lm.lairs")


def test_nothing_is_imported_before_a_name_is_asked_for():
    code = (
        "import sys, cs336lm.layers, cs336lm.tokenizer; from cs336lm import trainer;"
        "print('torch' in sys.modules, 'cs336lm.model' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert printed == "False False\n"


def test_a_pickle_of_before_is_read():
    from cs336lm import Tokenizer

    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)}, [])
    pickled = pickle.dumps(tokenizer, protocol=0)
    assert b"cs336lm.text.tokenizer" in pickled
    before = pickled.replace(b"cs336lm.text.tokenizer", b"cs336lm.tokenizer")
    assert pickle.loads(before) == tokenizer
