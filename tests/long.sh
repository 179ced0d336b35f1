#!/bin/sh
# Long runs do not grow: sft and train on the tiny model for many steps, with evaluations, checkpoints
# and a reward command, while this script looks at the process's memory and open files. After step 20
# it may take 1 MiB more at most, in the second half 128 KiB, and no more files (but for a moment, to
# write one).
#   sh tests/long.sh STEPS    the program: ./g2rl, or $G2RL
set -u
steps=${1:-2000} g2rl=${G2RL:-./g2rl} pid='' bad=0
[ -r /proc/self/status ] || { echo "long.sh: skipped, there is no /proc to look into"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "long.sh: $*" >&2
    bad=1
}
memory() { awk '/^VmRSS/ { print $2 }' "/proc/$pid/status" 2>/dev/null; } # KiB
open_files() { ls "/proc/$pid/fd" 2>/dev/null | wc -l; }

# watch NAME OPTION...: a line at steps 20, 40, 80, ...; `low`: fewest open files since the latest.
watch() {
    name=$1 first='' next=20 most=0 low=999 low_first='' last=0 half=0
    shift
    "$g2rl" "$@" --steps "$steps" --out "$dir/$name" 2>"$dir/log" &
    pid=$!
    while rss=$(memory) && [ -n "$rss" ]; do
        open=$(open_files)
        step=$(cat "$dir/$name/metrics.jsonl" 2>/dev/null | wc -l)
        if [ "$step" -ge 20 ] && [ "$open" -gt 0 ]; then
            [ "$last" -gt 0 ] || first=$rss
            [ "$rss" -le "$most" ] || most=$rss
            [ "$step" -gt $((steps / 2)) ] || half=$most
            [ "$open" -ge "$low" ] || low=$open
            if [ "$step" -ge $((2 * next)) ]; then
                low_first=${low_first:-$low}
                echo "$name: step $step, $rss KiB, $low files"
                next=$step low=$open
            fi
            last=$step
        fi
        sleep 0.1
    done
    wait $pid || { cat "$dir/log"; fail "$name has ended"; return; }
    [ "$last" -gt $((steps / 2)) ] || { fail "$name was not seen after step $last"; return; }
    echo "$name: step $last, at most $most KiB, $((most - first)) more than at step 20, $low files"
    [ $((most - first)) -le 1024 ] && [ $((most - half)) -le 128 ] || fail "$name: memory grows"
    [ "$low" -le "${low_first:-$low}" ] || fail "$name: open files grow, from $low_first to $low"
}

# Responses are cut at 5 tokens, so that every step needs the same memory.
task="--task add:digits=1 --max-tokens 5 --eval-every 10 --problems 4 --samples 2 --save-every 25 --keep 2 --threads 1"
watch sft sft --preset tiny $task --batch 8
"$g2rl" sft --preset tiny --task add:digits=1 --steps 20 --batch 16 --threads 1 --out "$dir/base" \
    2>"$dir/log" || { cat "$dir/log"; fail "the base model"; }
watch train train --model "$dir/base" $task --prompts 2 --rollouts 4 --kl-coef 0.01 --no-check \
    --reward-cmd 'while read -r line; do echo "{\"reward\": ${#line}, \"reason\": \"length\"}"; done'
exit $bad
