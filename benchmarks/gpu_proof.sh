#!/usr/bin/env bash
# Proves the package on a GPU in one go: builds it with CUDA, tests it, checks it, measures it; ends with a short table.
#
#   benchmarks/gpu_proof.sh                      every stage that has not passed yet
#   benchmarks/gpu_proof.sh --only tests_gpu     one stage (or several, with commas), whether it has passed or not
#   benchmarks/gpu_proof.sh --quick              less of everything: minutes
#   benchmarks/gpu_proof.sh --seconds 540        begins no stage that cannot end in time; call it again to go on
#   benchmarks/gpu_proof.sh --list | --table     the stages; the table of what has run so far
#
# OUT     where CSV files and plots go (default: benchmarks/results/<name of the GPU>); given one, logs go there, too,
#         otherwise to runs/gpu_proof
# What has passed is remembered in runs/gpu_proof, for this GPU and these sources.
# PYTHON  the Python that has PyTorch (default: python3); outside a virtual environment one is made over it
#
# Needs PyTorch with CUDA, Triton and nvcc. Python packages that are missing are installed by pip; without a network that
# fails and says what is missing. Exit status: 0, or 1 when a stage failed. A stage that cannot run here (no GPU, no
# compute-sanitizer) says so and is no failure; the last line tells how many.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Seconds at most, whether it needs a GPU, and the name.
STAGES="
300 no  tools
580 no  build
60  no  info
300 yes tests_dilated_block_sm_80
300 yes tests_dilated_block_sm_90a
540 yes tests_gpu
570 yes tests_triton
540 no  tests_cpu
540 yes memcheck
540 yes racecheck
300 yes bench_masked_l2
400 yes bench_weight_clip
400 yes bench_norm_act
540 yes bench_dilated_block_bf16_infer_b1_
540 yes bench_dilated_block_bf16_infer_b16_
540 yes bench_dilated_block_bf16_train
540 yes bench_dilated_block_fp32
400 yes bench_sm_80
540 yes bench_glcic_bf16_infer
540 yes bench_glcic_fp32_infer
400 yes bench_glcic_train
"
ONLY="" QUICK="" SECONDS_LEFT="" TABLE=""
while [ $# -gt 0 ]; do
  case "$1" in
    --only) ONLY=",${2:?--only needs the name of a stage},"; shift ;;
    --quick) QUICK=1 ;;
    --seconds) SECONDS_LEFT=${2:?--seconds needs a number}; shift ;;
    --list) awk 'NF {print $3}' <<<"$STAGES"; exit ;;
    --table) TABLE=1 ;;
    *) sed -n '2,19s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ "$1" = --help ]; exit ;;
  esac
  shift
done
for name in ${ONLY//,/ }; do
  grep -qE " $name$" <<<"$STAGES" || { echo "gpu_proof: there is no stage $name; --list names them" >&2; exit 2; }
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

REQUIRED="setuptools ninja pybind11 pytest hypothesis numpy pillow safetensors docstring-parser tqdm tyro"
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

stage_build() { INPAINT_FAST_CUDA=1 "$PYTHON" -m pip install --no-build-isolation --no-deps -e .; }

stage_info() {
  if command -v nvidia-smi >/dev/null; then nvidia-smi; else echo "no nvidia-smi"; fi
  "$PYTHON" -m inpaint_fast info
}

# dilated_block in CUDA C++, by either code. Both in stages of their own: a kernel that hangs costs no more than that.
stage_tests_dilated_block() {
  local which="not triton"
  [ -z "$QUICK" ] || which="not triton and (parity[ or capture)"
  INPAINT_FAST_CUDA_CAPABILITY=$1 TRITON_INTERPRET=1 "$PYTHON" -m pytest -q -m "gpu and not long" \
    tests/ops/conv_block tests/ops/test_capture.py -k "$which"
}

# On CUDA tensors: the rest of CUDA C++; then Triton, whose kernels are compiled as they come and kept, so that a second
# run is quick.
stage_tests_gpu() {
  local which="not triton and not conv_block and not dilated_block"
  [ -z "$QUICK" ] || which="(parity[ or capture) and not conv_block and not dilated_block"
  TRITON_INTERPRET=1 "$PYTHON" -m pytest -q -m "gpu and not long" tests -k "$which"
}
stage_tests_triton() {
  local which=triton
  [ -z "$QUICK" ] || which="triton and (capture or relu-torch or soft-mean-torch)"
  TRITON_INTERPRET=0 "$PYTHON" -m pytest -q -m "gpu and not long" tests -k "$which"
}

# All else: Triton in its interpreter, CUDA C++ in the emulation, machine code read for spills.
stage_tests_cpu() {
  local which=tests
  [ -z "$QUICK" ] || which="tests/test_package.py tests/ops/masked_l2/test_kernels.py tests/ops/norm_act/test_kernels.py"
  TRITON_INTERPRET=1 "$PYTHON" -m pytest -q -m "not gpu and not long" $which
}

# Every operator once in CUDA C++ on odd shapes and layouts. Each tensor in memory of its own, so that what is read or
# written beside it is seen.
sanitized() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 TRITON_INTERPRET=1 compute-sanitizer --tool "$1" --error-exitcode 9 \
    --target-processes all "$PYTHON" -m pytest -q -x -m "gpu and not long" tests/ops tests/optim -k "$2"
}
stage_memcheck() { sanitized memcheck "not capture and not steps and (odd_shapes or layouts or shapes or empty or clip)"; }
stage_racecheck() { sanitized racecheck "not capture and not steps and (odd_shapes or layouts_of or layouts_without or empty)"; }

stage_bench() { # the stem, then what the names of its cases begin with
  local to=$OUT/$1${2:+_$2} repeats=30 plot=()
  [ -z "$QUICK" ] || repeats=5
  mkdir -p "$OUT"
  if [ -z "$(missing matplotlib)" ]; then plot=(--plot "$to.png"); else echo "no matplotlib: no plot"; fi
  "$PYTHON" -m inpaint_fast bench "$1" --device cuda --case "^${2:-}" --repeats $repeats --csv "$to.csv" "${plot[@]}"
}

# The same convolutions by sm_80's code, beside the tables, for who wants to compare the two.
stage_bench_sm_80() { OUT=$OUT/sm_80 INPAINT_FAST_CUDA_CAPABILITY=sm_80 stage_bench dilated_block bf16_infer; }

run_stage() {
  local stem rest
  case "$1" in
    bench_sm_80) stage_bench_sm_80 ;;
    tests_dilated_block_*) stage_tests_dilated_block "${1#tests_dilated_block_}" ;;
    bench_*)
      for stem in masked_l2 weight_clip norm_act dilated_block glcic; do
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
  local limit gpu name result seconds
  while read -r limit gpu name; do
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
    print(f"\n{'case':44} {'ms':>9}  times as long: the best of eager, of compile, our Triton")


def best(row_of, *beginnings):
    rows = [row for name, row in row_of.items() if name.startswith(beginnings) and not name.endswith("no_clip")]
    times = [float(row["median_ms"]) for row in rows if row["median_ms"]]
    return min(times, default=None)


for case in dict.fromkeys(row["case"] for row in rows):
    row_of = {row["implementation"]: row for row in rows if row["case"] == case}
    ours = best({"inpaint_fast": row_of.get("inpaint_fast", {"median_ms": ""})}, "inpaint_fast")
    if ours is None:
        print(f"{case:44} not measured: {row_of.get('inpaint_fast', {}).get('backend', '')[:60]}")
        continue
    groups = (("eager", "foreach", "fused", "loop"), ("compile",), ("inpaint_fast_triton",))
    peers = [best(row_of, *names) for names in groups]
    print(f"{case:44} {ours:9.4f}  " + "  ".join("     -" if p is None else f"{p / ours:5.2f}x" for p in peers))
PY
}

if [ -n "$TABLE" ]; then print_tables; exit; fi

# ---- all of it ----

echo "gpu_proof: ${GPU:-no GPU}; $("$PYTHON" --version); results in $OUT, logs in $LOGS"
failed=0 skipped=0 left=0
while read -r limit gpu name; do
  [ -n "$name" ] || continue
  if [ -n "$ONLY" ]; then
    [[ "$ONLY" == *",$name,"* ]] || continue
  elif [[ "$(result_of "$name")" == PASS* ]]; then
    continue
  fi
  why=""
  [ "$gpu" = no ] || [ -n "$GPU" ] || why="no GPU"
  [[ "$name" != *check ]] || command -v compute-sanitizer >/dev/null || why=${why:-"compute-sanitizer is not installed"}
  [[ "$name" != *sm_90a ]] || [ -z "$GPU" ] || [ "$CAPABILITY" = 9.0 ] ||
    why="this GPU has compute capability $CAPABILITY, not 9.0"
  if [ -n "$why" ]; then
    printf 'SKIP  %-38s %s\n' "$name" "$why"
    printf '%s\tSKIP\t0\n' "$name" >>"$STATE"
    skipped=$((skipped + 1))
    continue
  fi
  if [ -n "$SECONDS_LEFT" ] && [ $((SECONDS + limit)) -gt "$SECONDS_LEFT" ] && [ "$left" -eq 0 ] && [ "$SECONDS" -gt 5 ]; then
    left=1
  fi
  if [ "$left" -eq 1 ]; then
    printf 'LEFT  %-38s call again to go on\n' "$name"
    continue
  fi
  log=$LOGS/$name.log begin=$SECONDS
  export -f run_stage missing sanitized stage_bench stage_tools stage_build stage_info stage_tests_gpu stage_tests_triton \
    stage_tests_dilated_block stage_bench_sm_80 stage_tests_cpu stage_memcheck stage_racecheck
  export PYTHON OUT QUICK REQUIRED
  if [[ "$name" != tests_dilated_block_* && "$(result_of tests_dilated_block_sm_90a)" == FAIL* ]]; then
    [ -n "${INPAINT_FAST_CUDA_CAPABILITY:-}" ] || echo "gpu_proof: sm_90a's code has failed; the rest runs sm_80's"
    export INPAINT_FAST_CUDA_CAPABILITY=sm_80
  fi
  timeout --kill-after 10 "$limit" bash -c "run_stage $name" </dev/null >"$log" 2>&1
  status=$? result=FAIL
  [ $status -ne 0 ] || result=PASS
  note=""
  [ $status -ne 124 ] && [ $status -ne 137 ] || note="took longer than $limit s; "
  printf '%s  %-38s %5s s  %s%s\n' $result "$name" $((SECONDS - begin)) "$note" "$(grep -v '^ *$' "$log" | tail -1 | cut -c1-90)"
  grep '^missing' "$log"
  printf '%s\t%s\t%s\n' "$name" $result $((SECONDS - begin)) >>"$STATE"
  [ $result = PASS ] || failed=$((failed + 1))
done <<<"$STAGES"
print_tables
echo
echo "gpu_proof: $failed stages failed; $skipped could not run here"
[ "$failed" -eq 0 ]
