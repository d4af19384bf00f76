#!/usr/bin/env bash
# Coverage-guided fuzzing with libFuzzer on stable Rust. Needs a C++ compiler; nothing else is installed.
#
#   fuzz/run.sh --minutes 60                 all targets, one after the other, an hour together
#   fuzz/run.sh --minutes 5 table_reader     one target
#   fuzz/run.sh --seeds                      writes the seeds into the corpus again
#   fuzz/run.sh --minimise                   leaves of the corpus what the coverage needs
#   fuzz/run.sh --replay api FILE            reads one input again
#
# What is found new is kept in fuzz/found/TARGET, outside the repository, and taken up by the next run. An input that
# breaks something is left in fuzz/artifacts; mend the engine, and add it to fuzz/corpus/TARGET: a plain `cargo test`
# reads it from then on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

all=(wal_replay table_reader manifest filter properties api)
minutes=6 task=fuzz targets=() file=
while (($#)); do
    case $1 in
        --minutes) minutes=$2; shift ;;
        --seeds) task=seeds ;;
        --minimise) task=minimise ;;
        --replay) task=replay; targets=("$2"); file=$(realpath "$3"); shift 2 ;;
        --) ;;
        -*) echo "unknown option $1" >&2; exit 2 ;;
        *) targets+=("$1") ;;
    esac
    shift
done
((${#targets[@]})) || targets=("${all[@]}")
for target in "${targets[@]}"; do
    [[ " ${all[*]} " == *" $target "* ]] || { echo "no target $target; there are ${all[*]}" >&2; exit 2; }
done

if [[ $task == seeds ]]; then
    cargo run --quiet --release --locked --manifest-path ../Cargo.toml -p siltstone-tests --example fuzz_seeds -- corpus
    exit
fi

# The counters and tables that libFuzzer reads, put into every crate by LLVM's own pass. With --target, build scripts
# and macros stay without.
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
RUSTFLAGS="${flags[*]}" cargo build --release --locked --target "$host"
bin=${CARGO_TARGET_DIR:-target}/$host/release
# The longest that an input may take, in seconds, and what a program may occupy, in MiB.
limits=(-timeout=25 -rss_limit_mb=2048 -max_len=16384 -len_control=20)

if [[ $task == replay ]]; then
    exec "$bin/${targets[0]}" "${limits[@]}" "$file"
fi

failed=0
for target in "${targets[@]}"; do
    mkdir -p "found/$target" "corpus/$target" artifacts
    if [[ $task == minimise ]]; then
        rm -rf "found/$target.new" && mkdir "found/$target.new"
        "$bin/$target" "${limits[@]}" -merge=1 "found/$target.new" "corpus/$target" "found/$target" 2>&1 | tail -1
        rm -rf "found/$target" && mv "found/$target.new" "found/$target"
        continue
    fi
    seconds=$(awk "BEGIN { print int($minutes * 60 / ${#targets[@]}) + 1 }")
    log=artifacts/$target.log
    status=0
    "$bin/$target" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="artifacts/$target-" \
        "found/$target" "corpus/$target" >"$log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
    memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    echo "$target: ${executions:-?} executions in $seconds s, ${coverage:-cov: ?} edges, peak ${memory:-?} MiB," \
        "$(find "found/$target" -type f | wc -l) inputs found, $([[ $status == 0 ]] && echo "no crash" || echo CRASH)"
    if [[ $status != 0 ]]; then
        failed=1
        grep -E 'panicked|ERROR|^options|Test unit written' -A2 "$log" | head -20
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
        echo "replay: fuzz/run.sh --replay $target fuzz/${input:-INPUT}"
    fi
done
exit $failed
