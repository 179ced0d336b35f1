#!/bin/sh
# The WebAssembly builds under wasmtime (pip install wasmtime): the tests of tests/wasm.c in each, and
# a few steps of every kind of training, which end with the weights of the native program.
# Run: make test-wasm
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

hashes() { # NAME, what runs the program...
    name=$1
    shift
    few="--steps 2 --prompts 4 --rollouts 4 --task maze:size=3"
    "$@" sft --preset nano --steps 4 --batch 4 --task maze:size=3 --out "$dir/$name/base" &&
        "$@" train --model "$dir/$name/base" $few --out "$dir/$name/rl" &&
        "$@" train --model "$dir/$name/base" $few --lora 4 --out "$dir/$name/lora" &&
        cat "$dir/$name"/*/metrics.jsonl | grep -o '"weights_hash": "[0-9a-f]*"' >"$dir/$name.hashes"
}

failed=0
hashes native ./g2rl 2>"$dir/log" || { cat "$dir/log"; exit 1; }
[ "$(wc -l <"$dir/native.hashes")" -eq 8 ] || { echo "no 8 hashes of the native program"; exit 1; }
for build in g2rl g2rl-relaxed; do
    python3 tests/wasi.py "test_$build.wasm" || failed=1
    if hashes "$build" python3 tests/wasi.py "$build.wasm" 2>"$dir/log" &&
        cmp "$dir/native.hashes" "$dir/$build.hashes"; then
        echo "ok    $build.wasm: 8 hashes of weights equal the native program's"
    else
        cat "$dir/log"
        echo "FAIL  $build.wasm"
        failed=1
    fi
done
exit $failed
