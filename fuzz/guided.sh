#!/usr/bin/env bash
# Fuzzes with coverage counters in the code of this repository, so that inputs that reach new code are kept and mutated
# further: fuzz/guided.sh TARGET [--seconds N] [--keep DIR] [--distill]. Uses the stable compiler, and rebuilds only the
# crates of this repository.
set -euo pipefail

if [ -n "${REGRAFT_FUZZ_WRAPPER:-}" ]; then
    # Cargo calls this script in place of the compiler. Build scripts have no counters, since nothing would register them.
    case " $* " in
        *" --crate-name build_script_"* | *" --print "*) exec "$@" ;;
    esac
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
fi
cd "$(dirname "$0")/.."
export REGRAFT_FUZZ_WRAPPER=1 RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/guided.sh
exec cargo run -p regraft-fuzz -- "$@"
