#!/usr/bin/env bash
# Runs the benchmarks behind docs/promises.md and prints each figure twice: as a line of JSON and in a table.
#
# usage: scripts/bench.sh [NAME…]      only those whose name holds one of the words, e.g. `scripts/bench.sh sandbox`
#
# A figure is {"name", "unit", "p50", "p95", "n", "against", "ratio"}: `ratio` is its p50 divided by the p50 of what
# `against` names, both measured in the same run on the same machine.
set -euo pipefail
cd "$(dirname "$0")/.."

# crate:example, in the order of the table.
benches=(
    hob-sandbox:bench_sandbox
    hob-sandbox:bench_snapshot
    hob-sandbox:bench_gate
    hob-session:bench_store
    hob-gateway:latency
    hob-agent:bench_first_request
    hob:bench_fanout
    hob:bench_memory
    hob:bench_start
)
results=target/bench.jsonl
mkdir -p target
: >"$results"

wanted() {
    [ $# -gt 1 ] || return 0
    local name=$1 word
    shift
    for word; do [[ $name == *$word* ]] && return 0; done
    return 1
}

failed=()
cargo build --release --locked --bins --quiet
for bench in "${benches[@]}"; do
    wanted "$bench" "$@" || continue
    echo "bench: ${bench#*:}" >&2
    cargo run --release --locked --quiet --package "${bench%%:*}" --example "${bench#*:}" |
        tee >(grep '^{"name"' >>"$results") | { grep -v '^{"name"' || true; } >&2 || failed+=("$bench")
done
if wanted docker "$@"; then
    echo "bench: docker" >&2
    scripts/bench-docker.sh "$results" >>"$results" || failed+=(docker)
fi

cat "$results"
node scripts/bench-table.mjs "$results"
if [ ${#failed[@]} -gt 0 ]; then
    echo "bench: failed: ${failed[*]}" >&2
    exit 1
fi
