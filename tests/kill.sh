#!/bin/sh
# Kills small runs with SIGKILL at random moments, N times in a row each, goes on with --resume each
# time, and compares weights and files with those of a run that nobody killed.
#   sh tests/kill.sh N        the program: ./g2rl, or $G2RL
set -u
n=${1:-50} g2rl=${G2RL:-./g2rl}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0

fail() {
    echo "kill.sh: $*" >&2
    bad=$((bad + 1))
}
checkpoints() { find "$1" -maxdepth 1 -name 'checkpoint-*' 2>/dev/null | sed 's/.*-//' | sort -n; }
timeless() { sed 's/"time[^,]*, //g; s/"tokens_per_s[^,]*, //' "$1"; }
tensors() { tail -c +$((8 + $(od -An -t u8 -N 8 "$1") + 1)) "$1"; } # without the header: it has times

# torture NAME OPTION...: the run is killed N times; then it ends 3 steps later.
torture() {
    name=$1 run=$dir/$1 whole=$dir/$1-whole killed=0 begun=0
    shift
    while [ $killed -lt "$n" ]; do
        if [ -n "$(checkpoints "$run")" ]; then
            "$g2rl" "$1" --resume --out "$run" 2>"$dir/log" &
        else
            begun=$((begun + 1))
            "$g2rl" "$@" --steps 100000 --save-every 1 --keep 2 --force --out "$run" 2>"$dir/log" &
        fi
        pid=$!
        sleep "$(awk "BEGIN { srand($killed + 1); print 0.02 + 0.25 * rand() }")"
        kill -9 $pid || { fail "$name ended by itself:"; cat "$dir/log"; return; }
        wait $pid 2>/dev/null
        killed=$((killed + 1))
    done
    last=$(checkpoints "$run" | tail -n 1)
    steps=$((${last:-0} + 3))
    "$g2rl" "$1" --resume --steps $steps --out "$run" 2>"$dir/log" || { cat "$dir/log"; fail "$name: --resume"; }
    "$g2rl" "$@" --steps $steps --save-every 1 --keep 2 --out "$whole" 2>"$dir/log" || fail "$name: the whole run"
    for file in metrics.jsonl rollouts.jsonl eval.jsonl; do
        [ -f "$whole/$file" ] || continue
        timeless "$run/$file" >"$dir/a"
        timeless "$whole/$file" >"$dir/b"
        cmp -s "$dir/a" "$dir/b" || fail "$name: $file differs"
    done
    (cd "$run" && find . | sort) >"$dir/a"
    (cd "$whole" && find . | sort) >"$dir/b"
    diff "$dir/a" "$dir/b" || fail "$name: other files"
    for file in $(cd "$whole" && find checkpoint-* -type f ! -name trainer.safetensors); do
        cmp -s "$run/$file" "$whole/$file" || fail "$name: $file differs"
    done
    for step in $(checkpoints "$whole"); do
        tensors "$run/checkpoint-$step/trainer.safetensors" >"$dir/a"
        tensors "$whole/checkpoint-$step/trainer.safetensors" >"$dir/b"
        [ -s "$dir/a" ] && cmp -s "$dir/a" "$dir/b" || fail "$name: trainer.safetensors of $step"
    done
    echo "$name: killed $killed times, begun $begun times, $steps steps, $(tail -n 1 "$run/metrics.jsonl" |
        grep -o '"weights_hash": "[0-9a-f]*"')"
}

task="--task add:digits=1 --problems 4 --samples 2 --max-tokens 16 --threads 1"
torture sft sft --preset nano $task --batch 16 --schedule constant --warmup 3 --eval-every 3
"$g2rl" sft --preset nano --task add:digits=1 --steps 40 --batch 32 --lr 3e-3 --threads 1 \
    --out "$dir/base" 2>"$dir/log" || fail "the base model"
torture train train --model "$dir/base" $task --prompts 4 --rollouts 4 --dtype bf16 --eval-every 2
exit $bad
