#!/bin/bash
# Prints what idle jobs cost a serving host: memory, threads, CPU and descriptors, with none and with many.
#
#   benches/idle.sh [PROGRAM] [JOBS] [SECONDS]
#
# A job is examples/word-count at parallelism 1, watching a directory that stays empty, without periodic checkpoints.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
program=$(realpath "${1:-$root/target/release/regraft}")
jobs=${2:-100}
seconds=${3:-20}
dir=$(mktemp -d)
export REGRAFT_DATA="$dir/data"
mkdir "$dir/input"
"$program" build "$root/examples/word-count/job.toml" > "$dir/log" 2>&1
"$program" serve --listen 127.0.0.1:0 2> "$dir/serve.log" &
host=$!
trap 'kill "$host"; wait "$host" || true; rm -rf "$dir"' EXIT
until grep -q 'Serving on' "$dir/serve.log"; do sleep 0.1; done

ticks() { awk '{ print $14 + $15 }' "/proc/$host/stat"; }
switches() { cat /proc/"$host"/task/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }'; }
row() {
    local before after woken
    sleep 3
    before=$(ticks) woken=$(switches)
    sleep "$seconds"
    after=$(ticks) woken=$(($(switches) - woken))
    awk -v jobs="$1" -v cpu="$((after - before))" -v seconds="$seconds" -v fds="$(ls "/proc/$host/fd" | wc -l)" -v woken="$woken" '
        /^VmRSS/ { rss = $2 } /^RssAnon/ { anon = $2 } /^Threads/ { threads = $2 }
        END { printf "%4d jobs: RSS %.1f MB (anonymous %.1f), %d threads, %.2f %% of a core, %.0f switches/s, %d descriptors\n",
              jobs, rss / 1000, anon / 1000, threads, cpu / seconds, woken / seconds, fds }' "/proc/$host/status"
}

row 0
for n in $(seq "$jobs"); do
    "$program" run -d "$root/examples/word-count/job.toml" --name "idle-$n" -p 1 --set "lines.path=$dir/input/*.txt" \
        --set lines.mode=watch --set checkpoint.interval=1h --set "out.path=$dir/out-$n" > "$dir/log" 2>&1 || cat "$dir/log"
done
row "$jobs"
