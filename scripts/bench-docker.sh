#!/usr/bin/env bash
# How long `docker run` and `docker exec` take to the first byte from a shell, and `docker commit` to keep an hour's work,
# against Hob's sandboxes.
#
# usage: scripts/bench-docker.sh [RESULTS]      RESULTS: JSON lines of the same run, with sandbox.cold, sandbox.exec and
#        snapshot.taken
#
# Prints a line of JSON for each figure, or, where there is no Docker, says so on stderr and prints nothing. Uses the
# daemon that runs, else starts Debian's own (docker.io) by hand in its own mount and network namespaces, which needs
# root. The image is one file, busybox-static, so that no registry is asked.
set -euo pipefail
runs=${BENCH_DOCKER_RUNS:-40}
results=${1:-/dev/null}
image=hob-bench:busybox
scratch=$(mktemp -d)
daemon=

say() { printf 'bench: %s\n' "$*" >&2; }
clean_up() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap clean_up EXIT

start_daemon() {
    if [ "$(id -u)" != 0 ] || ! command -v dockerd >/dev/null; then
        say "no Docker to compare with: none runs, and dockerd can only be started by root where docker.io is installed"
        exit 0
    fi
    export DOCKER_HOST=unix://$scratch/docker.sock
    # Its own mount namespace, so that nothing is left behind, and its own network namespace, so that it touches no
    # rule of this machine's firewall.
    unshare --mount --net --propagation private -- \
        dockerd --host "$DOCKER_HOST" --data-root "$scratch/data" --exec-root "$scratch/exec" \
        --pidfile "$scratch/docker.pid" --iptables=false --bridge=none >"$scratch/dockerd.log" 2>&1 &
    daemon=$!
    local _
    for _ in $(seq 100); do
        docker version >/dev/null 2>&1 && return
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.2
    done
    say "failed to start dockerd:"
    tail -n 5 "$scratch/dockerd.log" >&2
    exit 1
}

# Milliseconds from the start of a command to its first line.
first_line_ms() {
    local start=$EPOCHREALTIME end
    read -r _ < <("$@" 2>/dev/null)
    end=$EPOCHREALTIME
    echo $(((${end/./} - ${start/./}))) | awk '{ printf "%.2f\n", $1 / 1000 }'
}

# One figure from the numbers on stdin, against another one of this run where there is one.
figure() {
    local against
    against=$(sed -n "s/^{\"name\":\"$2\",.*\"p50\":\([0-9.]*\),.*/\1/p" "$results")
    sort -n | awk -v name="$1" -v other="$2" -v against="$against" '{ v[NR] = $1 } END {
        p50 = v[int((NR - 1) * 0.5) + 1]
        compared = "\"against\":null,\"ratio\":null"
        if (against != "") compared = sprintf("\"against\":\"%s\",\"ratio\":%.1f", other, p50 / against)
        printf "{\"name\":\"%s\",\"unit\":\"ms\",\"p50\":%s,\"p95\":%s,\"n\":%d,%s}\n",
            name, p50, v[int((NR - 1) * 0.95) + 1], NR, compared }'
}

docker version >/dev/null 2>&1 || start_daemon
if ! docker image inspect $image >/dev/null 2>&1; then
    busybox=$(command -v busybox) || { say "failed to make the image: busybox is missing (package busybox-static)"; exit 1; }
    mkdir -p "$scratch/root/bin"
    cp "$busybox" "$scratch/root/bin/busybox"
    ln -s busybox "$scratch/root/bin/sh"
    tar -C "$scratch/root" -c . | docker import - $image >/dev/null
fi

run() { docker run --rm --network none $image sh -c 'echo ready'; }
run >/dev/null
for _ in $(seq "$runs"); do first_line_ms run; done | figure docker.run sandbox.cold

container=$(docker run --detach --rm --network none $image /bin/busybox sleep 3600)
in_container() { docker exec "$container" sh -c 'echo ready'; }
in_container >/dev/null
for _ in $(seq "$runs"); do first_line_ms in_container; done | figure docker.exec sandbox.exec

# The same work as crates/sandbox/examples/bench_snapshot.rs does, then what it left is kept.
work='mkdir -p /new /old && head -c 20000000 /dev/urandom > /big && for n in $(seq 2000); do head -c 6000 /dev/zero > /new/$n; done && for n in $(seq 300); do head -c 3000 /dev/urandom > /old/$n; done'
for n in $(seq $((runs / 4))); do
    worker=$(docker run --detach --network none $image /bin/busybox sleep 3600)
    docker exec "$worker" sh -c "$work"
    start=$EPOCHREALTIME
    docker commit "$worker" "hob-bench:work-$n" >/dev/null
    end=$EPOCHREALTIME
    echo $(((${end/./} - ${start/./}))) | awk '{ printf "%.2f\n", $1 / 1000 }'
    docker rm --force "$worker" >/dev/null
    docker image rm "hob-bench:work-$n" >/dev/null
done | figure docker.commit snapshot.taken
docker kill "$container" >/dev/null
docker image rm $image >/dev/null
