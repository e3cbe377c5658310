#!/usr/bin/env bash
# Proves the package on a GPU in one go: builds it with CUDA, tests it, checks it, trains with it, measures it; ends with
# a short table to paste. Made for 8 minutes of a machine with 16 cores, one GPU and no network.
#
#   benchmarks/gpu_proof.sh                      every stage that has not passed yet, most valuable first, in 480 s
#   benchmarks/gpu_proof.sh --seconds 900        with another budget: begins no stage that cannot end in time
#   benchmarks/gpu_proof.sh --only tests_gpu     one stage (or several, with commas), whether it has passed or not
#   benchmarks/gpu_proof.sh --quick              less of everything
#   benchmarks/gpu_proof.sh --compile            torch.compile among the peers, too: default and reduce-overhead
#   benchmarks/gpu_proof.sh --compile-all        and max-autotune, which takes minutes for each case
#   benchmarks/gpu_proof.sh --list | --table     the stages; the table of what has run so far
#
# OUT     where CSV files and plots go (default: benchmarks/results/<name of the GPU>); given one, logs go there, too,
#         otherwise to runs/gpu_proof. Every stage writes as it goes, so that what ran stays, however it ends.
# JOBS    processes of a stage of tests (default: a third of the processors), where pytest-xdist is installed
# What has passed is remembered in runs/gpu_proof, for this GPU and these sources; calling again goes on.
# PYTHON  the Python that has PyTorch (default: python3); outside a virtual environment one is made over it
#
# Needs PyTorch with CUDA, Triton and nvcc. Python packages that are missing are installed by pip; without a network that
# fails and says what is missing. Exit status: 0, or 1 when a stage failed. A stage that cannot run here (no GPU, no
# compute-sanitizer) says so and is no failure; the last line tells how many.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Seconds at most, whether it needs a GPU, whether it may run beside its neighbours, and the name. What is timed runs
# alone; stages that follow one another and may run beside others do so.
STAGES="
200 no  alone  tools
300 no  alone  build
60  no  alone  info
240 yes beside tests_conv_sm_80
240 yes beside tests_conv_sm_90a
240 yes beside tests_gpu
300 yes beside tests_triton
180 yes beside tests_weight_gradient_sm_90a
240 yes beside train
150 yes alone  bench_glcic_bf16_infer
150 yes alone  bench_training_unet_wgan
120 yes alone  bench_dilated_block_bf16_infer
60  yes alone  bench_masked_l2
60  yes alone  bench_norm_act
60  yes alone  bench_weight_clip
300 yes beside memcheck
300 yes beside racecheck
120 yes alone  bench_dilated_block_bf16_train
120 yes alone  bench_dilated_block_fp32
150 yes alone  bench_glcic_train
120 yes alone  bench_strided_block_bf16
120 yes alone  bench_transposed_block_bf16
150 yes alone  bench_glcic_fp32_infer
400 yes alone  bench_training_adversarial
120 yes alone  bench_sm_80
540 no  alone  tests_cpu
"
ONLY="" QUICK="" SECONDS_LEFT=480 TABLE="" WITHOUT="compile"
while [ $# -gt 0 ]; do
  case "$1" in
    --only) ONLY=",${2:?--only needs the name of a stage},"; SECONDS_LEFT=""; shift ;;
    --quick) QUICK=1 ;;
    --compile) WITHOUT="compile_max" ;;
    --compile-all) WITHOUT="" ;;
    --seconds) SECONDS_LEFT=${2:?--seconds needs a number}; shift ;;
    --list) awk 'NF {print $4}' <<<"$STAGES"; exit ;;
    --table) TABLE=1 ;;
    *) sed -n '2,26s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ "$1" = --help ]; exit ;;
  esac
  shift
done
for name in ${ONLY//,/ }; do
  awk -v name="$name" '$4 == name {found = 1} END {exit !found}' <<<"$STAGES" ||
    { echo "gpu_proof: there is no stage $name; --list names them" >&2; exit 2; }
done

# ---- where ----

PYTHON=${PYTHON:-python3}
in_venv='import sys; sys.exit(sys.prefix == sys.base_prefix)'
if ! "$PYTHON" -c "$in_venv"; then
  VENV=build/gpu_proof_venv
  if [ -x $VENV/bin/python ] || "$PYTHON" -m venv --system-site-packages $VENV; then
    PYTHON=$PWD/$VENV/bin/python
  else
    echo "gpu_proof: $PYTHON makes no virtual environment; packages go where it is installed"
  fi
fi
GPU=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")') ||
  { echo "gpu_proof: $PYTHON cannot import torch; set PYTHON to one that can" >&2; exit 1; }
CAPABILITY=${GPU:+$("$PYTHON" -c 'import torch; print(*torch.cuda.get_device_capability(), sep=".")')}
SLUG=$(tr -cs 'a-z0-9' '_' <<<"$(tr 'A-Z' 'a-z' <<<"${GPU:-no gpu}")" | sed 's/^_*//; s/_*$//')
if [ -n "${OUT:-}" ]; then LOGS=$OUT/logs; else OUT=benchmarks/results/$SLUG LOGS=runs/gpu_proof; fi
SOURCES=$(find setup.py pyproject.toml csrc kernels inpaint_fast benchmarks tests -type f -regextype posix-extended \
  -regex '.*\.(py|cpp|h|cu|toml)' | sort | xargs cat | sha1sum | cut -c1-10)
mkdir -p "$LOGS" runs/gpu_proof
STATE=runs/gpu_proof/$SLUG-$SOURCES${QUICK:+-quick}.tsv # stage, result, seconds; the last line of a stage counts
touch "$STATE"

# ---- the stages; each runs in a process of its own with its output in its log ----

REQUIRED="setuptools ninja pybind11 pytest hypothesis numpy pillow safetensors docstring-parser tqdm typeguard tyro"
missing() { # those of the packages that are not there
  "$PYTHON" - "$@" <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, version

for name in sys.argv[1:]:
    try:
        found = version(name)
    except PackageNotFoundError:
        print(name)
    else:
        if name == "setuptools" and int(found.split(".")[0]) < 77:
            print("setuptools>=77")
PY
}

stage_tools() {
  command -v nvcc || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] || echo "missing: nvcc (the CUDA toolkit)"
  local wanted lacking
  wanted=$(missing $REQUIRED matplotlib)
  [ -z "$wanted" ] || timeout 240 "$PYTHON" -m pip install --retries 1 --timeout 10 $wanted
  [ -z "$(missing matplotlib)" ] || echo "missing: matplotlib; there will be no plots"
  lacking=$(missing $REQUIRED)
  [ -z "$lacking" ] || { echo "missing, and pip could not install it:" $lacking; return 1; }
}

stage_build() {
  NVCC_APPEND_FLAGS="${NVCC_APPEND_FLAGS:---threads 4}" INPAINT_FAST_CUDA=1 \
    "$PYTHON" -m pip install --no-build-isolation --no-deps -e .
}

stage_info() {
  if command -v nvidia-smi >/dev/null; then nvidia-smi; else echo "no nvidia-smi"; fi
  "$PYTHON" -m inpaint_fast info
}

# Tests in parallel processes, where pytest-xdist is there. They all use the one GPU.
tests() {
  local parallel=()
  [ -n "$(missing pytest-xdist)" ] || parallel=(-n "$JOBS")
  "$PYTHON" -m pytest -q -p no:cacheprovider "${parallel[@]}" "$@"
}

# The convolutions in CUDA C++, by either code. Both in stages of their own: a kernel that hangs costs no more than that.
stage_tests_conv() {
  local which="not triton and not weight_gradient_sm90"
  [ -z "$QUICK" ] || which="$which and (parity[ or capture)"
  INPAINT_FAST_CUDA_CAPABILITY=$1 TRITON_INTERPRET=1 tests -m "gpu and not long" \
    tests/ops/conv_block tests/ops/test_capture.py -k "$which"
}

# The weights' gradient by sm_90a's code, which nothing runs unasked.
stage_tests_weight_gradient_sm_90a() {
  tests -m "gpu and not long" tests/ops/conv_block/test_weight_gradient_sm90.py ${QUICK:+-k parity}
}

# On CUDA tensors: the rest of CUDA C++, whole networks and steps as graphs; then Triton, whose kernels are compiled as
# they come and kept, so that a second run is quick.
stage_tests_gpu() {
  local which="not triton and not conv_block and not dilated_block"
  [ -z "$QUICK" ] || which="(parity[ or capture or graphs) and not conv_block and not dilated_block"
  TRITON_INTERPRET=1 tests -m "gpu and not long" tests -k "$which"
}
stage_tests_triton() {
  local which=triton
  [ -z "$QUICK" ] || which="triton and (capture or relu-torch or soft-mean-torch)"
  TRITON_INTERPRET=0 tests -m "gpu and not long" tests -k "$which"
}

# All else: Triton in its interpreter, CUDA C++ in the emulation, machine code read for spills.
stage_tests_cpu() {
  local which=tests
  [ -z "$QUICK" ] || which="tests/test_package.py tests/ops/masked_l2/test_kernels.py tests/ops/norm_act/test_kernels.py"
  TRITON_INTERPRET=1 JOBS=$(nproc) tests -m "not gpu and not long" $which
}

# Every recipe for some steps, captured from the fourth on, its phases included; what is not captured is said.
stage_train() {
  "$PYTHON" - <<'PY'
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

from inpaint_fast.training import RECIPES

SHORT = {"completion_steps": 4, "discriminator_steps": 4, "autoencoder_steps": 5}


def train(name: str) -> tuple[str, bool, str]:
    with tempfile.TemporaryDirectory() as folder:
        known = {field.name for field in fields(RECIPES[name])}
        settings = {"steps": 14, "batch-size": 16, "heldout-pictures": 4, "heldout-crops": 1, "evaluate-every": 100}
        settings |= {key.replace("_", "-"): value for key, value in SHORT.items() if key in known} | {"device": "cuda"}
        options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        call = [sys.executable, "-m", "inpaint_fast", "train", name, "--out", f"{folder}/run", *options]
        ran = subprocess.run(call, capture_output=True, text=True)
    said = f"{ran.stdout}\n{ran.stderr}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    why = next((line for line in lines if "not captured" in line), "captured")
    return name, ran.returncode == 0, why if ran.returncode == 0 else lines[-1]


with ThreadPoolExecutor(8) as pool:
    results = []
    for name, well, said in pool.map(train, RECIPES):
        results.append(well and said == "captured")
        print(f"{'trained' if well else 'FAILED'}  {name:26} {said}", flush=True)
print(f"{sum(results)} of {len(results)} recipes trained and captured")
sys.exit(not all(results))
PY
}

# Every operator in CUDA C++ on odd shapes and layouts, and whole steps of optimizers. Each tensor in memory of its own,
# so that what is read or written beside it is seen.
sanitized() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 TRITON_INTERPRET=1 compute-sanitizer --tool "$1" --error-exitcode 9 \
    --target-processes all "$PYTHON" -m pytest -q -p no:cacheprovider -m "gpu and not long" tests/ops tests/optim -k "$2"
}
CHECKED="not triton and not capture and not steps and not graph and (odd_shapes or layouts or shapes or empty or clip)"
stage_memcheck() { sanitized memcheck "$CHECKED"; }
stage_racecheck() { sanitized racecheck "$CHECKED and not channels_last"; }

stage_bench() { # the stem, what the names of its cases begin with, and a name for that if it is none
  local name=${3:-${2:-}}
  local to=$OUT/$1${name:+_$name} repeats=15 plot=() without=()
  [ -z "$QUICK" ] || repeats=5
  [ -z "$WITHOUT" ] || without=(--without "$WITHOUT")
  mkdir -p "$OUT"
  if [ -z "$(missing matplotlib)" ]; then plot=(--plot "$to.png"); else echo "no matplotlib: no plot"; fi
  "$PYTHON" -m inpaint_fast bench "$1" --device cuda --case "^(${2:-})" --repeats $repeats --csv "$to.csv" \
    "${plot[@]}" "${without[@]}"
}

# The same convolutions by sm_80's code, beside the tables, for who wants to compare the two.
stage_bench_sm_80() { OUT=$OUT/sm_80 INPAINT_FAST_CUDA_CAPABILITY=sm_80 stage_bench dilated_block bf16_infer; }

run_stage() {
  local stem rest
  case "$1" in
    bench_sm_80) stage_bench_sm_80 ;;
    bench_training_adversarial) stage_bench training '(context_gan|context_wgan|dcgan|latent_gan)$' adversarial ;;
    tests_conv_*) stage_tests_conv "${1#tests_conv_}" ;;
    bench_*)
      for stem in masked_l2 weight_clip norm_act dilated_block strided_block transposed_block glcic training; do
        rest=${1#bench_"$stem"}
        [ "$rest" = "$1" ] || { rest=${rest#_}; stage_bench "$stem" "${rest%_}"; return; }
      done ;;
    *) "stage_$1" ;;
  esac
}

# ---- the tables ----

result_of() { awk -F '\t' -v stage="$1" '$1 == stage {found = $2 "\t" $3} END {print found}' "$STATE"; }

print_tables() {
  echo
  printf '%-40s %-6s %8s\n' stage result seconds
  local limit gpu beside name result seconds
  while read -r limit gpu beside name; do
    [ -n "$name" ] || continue
    IFS=$'\t' read -r result seconds < <(result_of "$name")
    printf '%-40s %-6s %8s\n' "$name" "${result:--}" "${seconds:--}"
  done <<<"$STAGES"
  "$PYTHON" - "$OUT" <<'PY'
import csv
import sys
from pathlib import Path

rows = [row for path in sorted(Path(sys.argv[1]).glob("*.csv")) for row in csv.DictReader(path.open())]
if rows:
    print("\nms a call, and of the GPU alone (a captured graph); times as long as that take the best of eager, of compile, ours")
    print("by Triton: as calls / of the GPU alone\n")
    print(f"{'case':40} {'call':>9} {'GPU':>9}  {'eager':>13}  {'compile':>13}  {'Triton':>13}")


def best(row_of, column, *beginnings):
    rows = [row for name, row in row_of.items() if name.startswith(beginnings) and not name.endswith("no_clip")]
    times = [float(row[column]) for row in rows if row.get(column)]
    return min(times, default=None)


def ratio(peer, own):
    return "-" if peer is None or own is None else f"{peer / own:.2f}x"


for case in dict.fromkeys(row["case"] for row in rows):
    row_of = {row["implementation"]: row for row in rows if row["case"] == case}
    ours = {"inpaint_fast": row_of.get("inpaint_fast", {})}
    call, gpu = (best(ours, column, "inpaint_fast") for column in ("median_ms", "gpu_ms"))
    if call is None:
        print(f"{case:40} not measured: {ours['inpaint_fast'].get('backend', '')[:60]}")
        continue
    cells = []
    for names in (("eager", "foreach", "fused", "loop"), ("compile",), ("inpaint_fast_triton",)):
        ratios = [ratio(best(row_of, "median_ms", *names), call), ratio(best(row_of, "gpu_ms", *names), gpu)]
        cells.append(" / ".join(ratios) if set(ratios) != {"-"} else "-")
    print(f"{case:40} {call:9.4f} {'-' if gpu is None else f'{gpu:9.4f}':>9}  " + "  ".join(f"{cell:>13}" for cell in cells))

prefix, both = "inpaint_fast_wgrad_", ("sm_80", "sm_90a")
for case in dict.fromkeys(row["case"] for row in rows if row["implementation"].startswith(prefix)):
    row_of = {row["implementation"]: row for row in rows if row["case"] == case}
    old, new = ([best(row_of, column, prefix + code) for column in ("median_ms", "gpu_ms")] for code in both)
    print(f"{case}: with the weights' gradient by sm_90a's code instead of sm_80's", " / ".join(map(ratio, old, new)))
PY
}

if [ -n "$TABLE" ]; then print_tables; exit; fi

# ---- all of it ----

echo "gpu_proof: ${GPU:-no GPU}; $("$PYTHON" --version); results in $OUT, logs in $LOGS"
JOBS=${JOBS:-$(($(nproc) / 3 > 0 ? $(nproc) / 3 : 1))}
export -f run_stage missing tests sanitized stage_bench stage_tools stage_build stage_info stage_tests_gpu \
  stage_tests_triton stage_tests_conv stage_tests_weight_gradient_sm_90a stage_bench_sm_80 stage_tests_cpu stage_train stage_memcheck stage_racecheck
export PYTHON OUT QUICK REQUIRED JOBS WITHOUT CHECKED
failed=0 skipped=0 left=0 begun=0 running=()

why_skipped() { # why a stage cannot run here; nothing: it can
  if [ "$2" = yes ] && [ -z "$GPU" ]; then echo "no GPU"
  elif [[ "$1" == *check ]] && ! command -v compute-sanitizer >/dev/null; then echo "compute-sanitizer is not installed"
  elif [[ "$1" == *sm_90a ]] && [ "$CAPABILITY" != 9.0 ]; then
    echo "this GPU has compute capability $CAPABILITY, not 9.0"
  fi
}

run_logged() { # the limit, the name; writes the log, a line, and the state
  local limit=$1 name=$2 log=$LOGS/$2.log begin=$SECONDS status result=FAIL note=""
  timeout --kill-after 10 "$limit" bash -c "run_stage '$name'" </dev/null >"$log" 2>&1
  status=$?
  [ $status -ne 0 ] || result=PASS
  [ $status -ne 124 ] && [ $status -ne 137 ] || note="took longer than $limit s; "
  printf '%s  %-46s %5s s  %s%s\n%s' $result "$name" $((SECONDS - begin)) "$note" \
    "$(grep -v '^ *$' "$log" | tail -1 | cut -c1-90)" "$(grep '^missing' "$log" | sed 's/$/\n/')"
  printf '%s\t%s\t%s\n' "$name" $result $((SECONDS - begin)) >>"$STATE"
  [ $result = PASS ]
}

finish_running() { # those that run beside each other
  local pid
  for pid in "${running[@]}"; do wait "$pid" || failed=$((failed + 1)); done
  running=()
}

while read -r limit gpu beside name; do
  [ -n "$name" ] || continue
  if [ -n "$ONLY" ]; then
    [[ "$ONLY" == *",$name,"* ]] || continue
  elif [[ "$(result_of "$name")" == PASS* ]]; then
    continue
  fi
  why=$(why_skipped "$name" "$gpu")
  if [ -n "$why" ]; then
    printf 'SKIP  %-46s %s\n' "$name" "$why"
    printf '%s\tSKIP\t0\n' "$name" >>"$STATE"
    skipped=$((skipped + 1))
    continue
  fi
  [ "$beside" = beside ] || finish_running
  if [ -n "$SECONDS_LEFT" ] && [ "$begun" -gt 0 ]; then # the first one is always begun
    rest=$((SECONDS_LEFT - SECONDS)) # a stage may take all that is left, if that is half of its limit
    if [ "$rest" -lt $((limit / 2)) ]; then
      left=$((left + 1))
      printf 'LEFT  %-46s call again to go on\n' "$name"
      continue
    fi
    [ "$rest" -gt "$limit" ] || limit=$rest
  fi
  if [[ "$name" != tests_conv_* && "$(result_of tests_conv_sm_90a)" == FAIL* ]]; then
    [ -n "${INPAINT_FAST_CUDA_CAPABILITY:-}" ] || echo "gpu_proof: sm_90a's code has failed; the rest runs sm_80's"
    export INPAINT_FAST_CUDA_CAPABILITY=sm_80
  fi
  begun=$((begun + 1))
  if [ "$beside" = beside ]; then
    run_logged "$limit" "$name" &
    running+=($!)
  else
    run_logged "$limit" "$name" || failed=$((failed + 1))
  fi
done <<<"$STAGES"
finish_running
print_tables
echo
echo "gpu_proof: $failed stages failed; $skipped could not run here; $left left for another call"
[ "$failed" -eq 0 ]
