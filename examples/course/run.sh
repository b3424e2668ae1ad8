#!/usr/bin/env bash
# The experiments of CS336's first assignment, a command a problem, and their report.
#
#   make course                    tiny, on the built-in stories: under half an hour on two cores
#   BASE=my.toml OUT=course examples/course/run.sh
#                                  the same on your own tokens; configs/tinystories.toml with a GPU
#                                  is the handout's size
#
# What was done is not done again: a run that was stopped goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-course}
BASE=${BASE:-}
SEEDS=${SEEDS:-2}
RATES=${RATES:-3e-4,1e-3,3e-3,1e-2,3e-2,1e-1,3e-1,1}
LARGEST=${LARGEST:-64}
BATCH_TOKENS=${BATCH_TOKENS:-400K}
cs336lm=${CS336LM:-cs336lm}
python=${PYTHON:-python3}
mkdir -p "$OUT"

say() { printf '\n== %s\n' "$*"; }

if [ -z "$BASE" ]; then
  BASE=examples/course/base.toml
  [ "$OUT" = course ] || { echo "examples/course/base.toml reads course/: give BASE too" >&2; exit 2; }

  say 'train_bpe: a tokenizer for the stories, and one of another size'
  [ -e "$OUT/stories.txt" ] || $cs336lm stories --megabytes 4 --seed 1 --out "$OUT/stories.txt"
  [ -e "$OUT/held-out.txt" ] || $cs336lm stories --megabytes 0.4 --seed 2 --out "$OUT/held-out.txt"
  for size in 1000 400; do
    folder=$OUT/tokenizer; [ $size = 1000 ] || folder=$OUT/tokenizer-$size
    [ -e "$folder" ] || $cs336lm train-bpe "$OUT/stories.txt" --vocab-size $size \
      --special-token '<|endoftext|>' --out "$folder"
  done
  for name in train val; do
    text=$OUT/stories.txt; [ $name = train ] || text=$OUT/held-out.txt
    [ -e "$OUT/$name.npy" ] || $cs336lm tokenize "$text" --tokenizer "$OUT/tokenizer" --out "$OUT/$name.npy"
  done

  say 'tokenizer_experiments: what the tokenizers make of text'
  $cs336lm inspect "$OUT/tokenizer" --on "$OUT/held-out.txt"
  $cs336lm inspect "$OUT/tokenizer-400" --on "$OUT/held-out.txt"
fi

say 'transformer_accounting, adamwAccounting: GPT-2 XL'
$cs336lm account --preset gpt2-xl --markdown > "$OUT/accounting.md"
$cs336lm account --preset gpt2-xl --tokens 16384 --markdown > "$OUT/accounting-16384.md"
$cs336lm account --preset gpt2-xl-2026 --device h100-tf32 --mfu 0.5 --steps 400000 --batch 1024 \
  --markdown > "$OUT/accounting-2026.md"
grep 'time' "$OUT/accounting-2026.md"

say 'learning_rate_tuning: SGD on a toy, at 1, 10, 100 and 1000'
$python examples/learning_rate_toy.py

say 'learning_rate: to the edge of stability, and beyond it'
$cs336lm sweep --config "$BASE" --grid "optim.lr=$RATES" --out "$OUT/learning-rate"

say 'batch_size_experiment: from 1 to what memory holds (here: to LARGEST)'
$cs336lm batch-sizes --config "$BASE" --train.steps None --tokens "$BATCH_TOKENS" \
  --largest "$LARGEST" --out "$OUT/batch-size"

say 'layer_norm_ablation, pre_norm_ablation, no_pos_emb, swiglu_ablation'
$cs336lm ablate --config "$BASE" --only no-norm,no-norm-low-lr,post-norm,nope,silu \
  --seeds "$SEEDS" --out "$OUT/ablations"

say 'generate, and the report of all of it'
$cs336lm report "$OUT/learning-rate" "$OUT/batch-size" "$OUT/ablations" \
  --title 'CS336, assignment 1: experiments' --prompt 'Once upon a time' --out "$OUT/report"
