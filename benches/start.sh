#!/bin/bash
# Prints how long a job takes to start, from the call of the program, in milliseconds: median, least and greatest.
#
#   benches/start.sh [PROGRAM] [ROUNDS]
#
# `first line`: the endless job of examples/rolling-count with a print sink, until its first line is read.
# `whole job`: examples/word-count to its end, with its output committed.
# `without fsync`: the same with the data directory and the output in memory (/dev/shm).
# Guests are built and compiled before the clock starts.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
program=$(realpath "${1:-$root/target/release/regraft}")
rounds=${2:-11}
dir=$(mktemp -d)
memory=$(mktemp -d /dev/shm/regraft-start.XXXXXX)

now() { echo $(($(date +%s%N) / 1000)); }
sed 's/connector = "blackhole"/connector = "print"/' "$root/examples/rolling-count/job.toml" > "$root/examples/rolling-count/.start.toml"
trap 'rm -rf "$dir" "$memory" "$root/examples/rolling-count/.start.toml"' EXIT

first_line() {
    local begun ended
    begun=$(now)
    ended=$("$program" run "$root/examples/rolling-count/.start.toml" 2> "$dir/log" | { read -r _ && now; }) || true
    echo $((ended - begun))
}

whole_job() {
    local begun
    begun=$(now)
    "$program" run "$root/examples/word-count/job.toml" --set "out.path=$1" 2> "$dir/log" || cat "$dir/log" >&2
    echo $(($(now) - begun))
}

row() {
    local name=$1
    shift
    "$@" > "$dir/first"
    for _ in $(seq "$rounds"); do "$@"; done | sort -n | awk -v name="$name" '
        { us[NR] = $1 }
        END { printf "%-28s %7.1f  (%.1f to %.1f)\n", name, us[int((NR + 1) / 2)] / 1000, us[1] / 1000, us[NR] / 1000 }'
}

for place in "$dir" "$memory"; do
    export REGRAFT_DATA="$place/data"
    for job in rolling-count word-count; do "$program" build "$root/examples/$job/job.toml" > "$dir/log" 2>&1; done
    note=$([ "$place" = "$memory" ] && echo ", without fsync" || true)
    row "first line$note" first_line
    row "whole job$note" whole_job "$place/out"
done
