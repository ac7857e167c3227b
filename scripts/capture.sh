#!/usr/bin/env bash
# Draws docs/run.svg, the picture in README.md: runs `make run` on a terminal and keeps what `hob run` showed there, from
# its first line to its last, as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
make --silent setup
record=$(mktemp)
trap 'rm -f "$record"' EXIT
# Once before, so that the picture shows the work and not the compiler.
scripts/run.sh >/dev/null
export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0='Ada Lovelace' \
    GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=ada@example.org
script --quiet --return --command 'stty cols 106 rows 60; exec scripts/run.sh' "$record" >/dev/null
sed -n '/▌ The work/,/^next:/ { /▌ The work/d; /^next:/d; p }' "$record" |
    node scripts/ansi-to-svg.mjs 'hob run --repo .hob-demo/shell-quote "$(cat demo/prompt.txt)"' >docs/run.svg
echo "capture: docs/run.svg, $(wc -c <docs/run.svg) bytes"
