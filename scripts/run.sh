#!/usr/bin/env bash
# Hob at work, once through: an agent mends a real bug of a real package, in a sandbox, and proves it.
#
# Everything it makes lies in .hob-demo. Exits with 0 when the tests were red before and are green after.
set -euo pipefail
cd "$(dirname "$0")/.."

demo=$PWD/.hob-demo
repository=$demo/shell-quote
hob=$PWD/target/demo/hob
export HOB_DATA_DIR=$demo/data HOB_CONFIG=$demo/hob.toml
unset HOB_SERVER

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
step() { printf '\n%s▌ %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s  %s%s\n' "$dim" "$*" "$plain"; }
fail() {
    printf 'run: failed to %s\n' "$*" >&2
    exit 1
}

started=()
clean_up() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}
trap clean_up EXIT

# Waits until a file of a program that was just started holds a line that fits, and prints it.
first_line() {
    local file=$1 pattern=$2 pid=$3 line _
    for _ in $(seq 600); do
        line=$(grep -m 1 -o -- "$pattern" "$file" 2>/dev/null || true)
        [ -z "$line" ] || { echo "$line"; return; }
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    cat "${file%.out}".* >&2 || true
    return 1
}

step 'Hob is built'
cargo build --profile demo --locked --package hob --package hob-scripted-model --bins
mkdir -p "$demo"

step 'The repository: shell-quote 1.7.2, as released, with the tests of 1.7.3'
demo/fetch.sh

step 'The model'
: >"$HOB_CONFIG"
if [ -n "${ANTHROPIC_API_KEY:-}${OPENAI_API_KEY:-}${GEMINI_API_KEY:-}" ]; then
    echo '  A real one, with the key from your environment. The key stays outside the sandbox.'
else
    target/demo/scripted-model --script demo/script.json >"$demo/model.out" 2>"$demo/model.err" &
    started+=($!)
    url=$(first_line "$demo/model.out" 'http://.*' $!) || fail 'start the scripted model'
    cat >"$HOB_CONFIG" <<TOML
# Written by scripts/run.sh: the scripted model, which is no real model.
[providers.scripted]
kind = "openai"
base_url = "$url/v1"

[models.scripted-model]
provider = "scripted"
TOML
    printf '  %sSCRIPTED: no real model.%s No key is set, so demo/script.json plays what a model would say.\n' \
        "$bold" "$plain"
    echo '  The server, the sandbox, the tools, the checks and the commit are the real ones.'
    echo '  For a real model: ANTHROPIC_API_KEY=… make run (or OPENAI_API_KEY, GEMINI_API_KEY)'
fi

step 'The server'
"$hob" serve --listen 127.0.0.1:0 >"$demo/server.out" 2>"$demo/server.err" &
started+=($!)
first_line "$demo/server.out" 'Hob listens on .*' $! || fail 'start the server'

step 'The work: hob run --repo .hob-demo/shell-quote "$(cat demo/prompt.txt)"'
outcome=0
"$hob" run --repo "$repository" "$(cat demo/prompt.txt)" || outcome=$?

session=$("$hob" session list --json | node -pe 'JSON.parse(require("fs").readFileSync(0)).at(0)?.id ?? ""')
[ -n "$session" ] || fail 'find the session that was just made'

step 'The proof'
url=$(node -pe 'JSON.parse(require("fs").readFileSync(process.argv[1])).url' "$HOB_DATA_DIR/server.json")
HOB_TOKEN=$(cat "$HOB_DATA_DIR/token") node demo/proof.mjs "$url" "$session" "$demo/evidence.json" || outcome=1

step 'The commit, fetched into the checkout'
branch=$("$hob" session show "$session" --json | node -pe 'JSON.parse(require("fs").readFileSync(0)).branch ?? ""')
if [ -n "$branch" ]; then
    (cd "$repository" && "$hob" pull "$session" >/dev/null)
    git -C "$repository" --no-pager show --stat --format='%C(yellow)%h%C(reset) %C(bold)%s%C(reset)%nby %an <%ae>' "$branch" |
        sed 's/^ */  /'
else
    note 'none: nothing was changed'
    outcome=1
fi

# Its log and branch stay; its sandbox goes, so that nothing is left running.
"$hob" session archive "$session"

step "$([ "$outcome" = 0 ] && echo 'Done' || echo 'It did not work out')"
note "branch    git -C ${repository#"$PWD"/} log -p $branch"
note "evidence  ${demo#"$PWD"/}/evidence.json"
note "your turn ${hob#"$PWD"/} run --repo PATH \"what you want\""
note "machine   ${hob#"$PWD"/} doctor"
exit "$outcome"
