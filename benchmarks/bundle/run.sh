#!/usr/bin/env bash
# On a machine with a GPU, PyTorch and NumPy, without a network:   bash run.sh [FOLDER FOR RESULTS]
# Checks every path for a minute, then runs the benchmarks in the order of their worth, each in a
# process and under a time limit of its own. Rows are written to results.txt as they are finished;
# a job that fails, runs too long or is not reached any more says so there.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/results}
mkdir -p "$out" "$here/site"
: "${SECONDS_IN_ALL:=470}" "${SECONDS_A_JOB:=80}"

python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$here/site" "$here"/wheels/*.whl || exit 1
export PYTHONPATH=$here/site PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
cd "$here/benchmarks" || exit 1

say() { echo "$*" | tee -a "$out/results.txt"; }

{
    date --utc
    nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv,noheader
    python3 -c 'import sys, torch; print(f"Python {sys.version.split()[0]}, torch {torch.__version__}")'
} 2>&1 | tee -a "$out/results.txt"

gpu=cuda smoke=
python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || gpu=cpu smoke=--smoke
if [ -n "$smoke" ]; then
    say "no GPU here: paths are checked on the CPU, benchmarks run at tiny sizes"
    : "${SECONDS_TO_CHECK:=280}" # a CPU compiles for longer
fi
timeout -k 5 300 python3 bundle/check.py --device "$gpu" --limit "${SECONDS_TO_CHECK:-60}" 2>>"$out/errors.txt" |
    tee -a "$out/results.txt"

while read -r job; do
    if [ "$SECONDS" -gt "$((SECONDS_IN_ALL - SECONDS_A_JOB))" ]; then
        say "not run: $job (the time is up)"
        continue
    fi
    began=$SECONDS
    row=$(timeout -k 5 "$SECONDS_A_JOB" python3 gpu.py --job "$job" $smoke \
        2>>"$out/errors.txt" </dev/null | tail -n 1)
    case $row in
        figures:*) say "$job: ${row#figures: } ($((SECONDS - began)) s)" ;;
        *) say "failed: $job (after $((SECONDS - began)) s, see errors.txt)" ;;
    esac
done <"$here/jobs.txt"
say "done after $SECONDS seconds"
