#!/bin/sh
# The experiment: teaches a small model from nothing to solve small problems, then goes on from it
# with each method, on the same prompts and the same budget, and compares them all along their way
# on problems that none of them ever saw. It does so on two grounds that belong together: countdown,
# where groups without a signal are mostly all wrong, and maze, where they are all right.
#
#   ./run.sh                   both grounds, one seed: about 10 minutes on 2 cores
#   ./run.sh --task reach      one ground: countdown, maze or reach
#   ./run.sh --seeds 5         seeds 1 to 5, each with a base model of its own
#   ./run.sh --lr 5e-5         another learning rate for every method, in a folder of its own
#   ./run.sh --quick           half a minute; countdown with three numbers, fewer steps
#
# Runs go side by side, as many as there are cores; JOBS=1 SEED=7 G2RL=./g2rl_debug change how many,
# the first seed and the program. The results do not depend on JOBS. A base model that is there is
# used again. METHODS, SPLIT and RUNS say which rows (data/rows.sh), on which problems, where.
#
# doc/experiment.md is what came of many seeds of it; data/experiment.sh makes all of its runs.
set -eu
cd "$(dirname "$0")"

export G2RL=${G2RL:-./g2rl} SPLIT=${SPLIT:-test}

. data/rows.sh # ground, settings, base, train
methods=${METHODS:-"grpo entropy evol g2rl g2rl-text g2rl-live g2rl-random g2rl-count"}

say() { printf '\n== %s\n' "$*" >&2; }

if [ "${1-}" = --step ]; then # one of those that xargs starts below; its settings are exported
    shift
    "$@"
    exit
fi

wrong() {
    echo "$1" >&2
    exit 2
}
seeds=1 quick=no grounds="" asked=""
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=yes ;;
    --seeds)
        seeds=${2-}
        case $seeds in '' | 0* | *[!0-9]*) wrong "run.sh: --seeds: expected a number from 1 on" ;; esac
        shift
        ;;
    --task)
        grounds=${2-}
        case $grounds in
        countdown | maze | reach) ;;
        *) wrong "run.sh: --task: expected countdown, maze or reach" ;;
        esac
        shift
        ;;
    --lr)
        asked=${2-}
        case $asked in [0-9]*) ;; *) wrong "run.sh: --lr: expected a number, such as 5e-5" ;; esac
        shift
        ;;
    *) wrong "usage: ./run.sh [--quick] [--task countdown|maze|reach] [--seeds N] [--lr X]" ;;
    esac
    shift
done
[ $quick = yes ] && : "${grounds:=countdown}"
: "${grounds:=countdown maze}"

cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
JOBS=${JOBS:-$cores} first=${SEED:-1}
case $JOBS in '' | 0* | *[!0-9]*) wrong "run.sh: JOBS: '$JOBS'; expected a number from 1 on" ;; esac
case $first in '' | *[!0-9]*) wrong "run.sh: SEED: '$first'; expected a number" ;; esac
last=$((first + seeds - 1))
# How many; on stdin, a line each: a function and its arguments. The cores are shared by as many as
# run at a time, which are fewer in the last round.
side_by_side() {
    jobs=$(($1 < JOBS ? $1 : JOBS))
    awk -v n="$1" -v jobs="$jobs" -v cores="$cores" '{
        last = n % jobs
        threads = int(cores / (NR > n - last ? last : jobs))
        name = $1
        $1 = threads > 1 ? threads : 1
        print name, $0
    }' | xargs -P "$jobs" -L 1 sh run.sh --step
}

say "building"
[ "$G2RL" != ./g2rl ] || make -s

# One ground, from its base models to its table. Countdown's runs are in runs/, others' in a folder
# of their own.
experiment() { # NAME
    ground "$1" $quick
    bases=${RUNS:-runs}
    [ $quick = no ] || bases=$bases/quick
    [ "$1" = countdown ] || bases=$bases/$1
    lr=${asked:-$rate} runs=$bases
    [ "$lr" = "$rate" ] || runs=$bases/lr-$lr
    export bases runs lr

    say "$1, base models: $sft supervised steps of 128 solved problems, from random weights"
    echo "   (how far each run is: tail -f $runs/seed$first/*.log)" >&2
    seq "$first" "$last" | sed 's/^/base /' | side_by_side "$seeds"

    say "$1, each method: $steps steps of 16 prompts x 16 rollouts, from that base model"
    for seed in $(seq "$first" "$last"); do
        for method in $methods; do echo "train $seed $method"; done
    done | side_by_side $((seeds * $(echo $methods | wc -w)))

    all="" models="base=$bases/seed$first/base"
    for method in $methods; do models="$models $method=$runs/seed$first/$method"; done
    for seed in $(seq "$first" "$last"); do
        for method in $methods; do all="$all $runs/seed$seed/$method"; done
    done
    say "$1, geometry of the responses to $groups problems, seed $first"
    "$G2RL" geometry $models --task "$task" --split "$SPLIT" --problems "$groups" --samples 8 \
        --true-gradients --json --seed "$first" >"$runs/geometry.jsonl.tmp"
    mv "$runs/geometry.jsonl.tmp" "$runs/geometry.jsonl"

    say "$1, the table"
    "$G2RL" report $all --json --geometry "$runs/geometry.jsonl" --out "$runs/report.html" \
        >"$runs/summary.json.tmp"
    mv "$runs/summary.json.tmp" "$runs/summary.json"
    "$G2RL" report $all --geometry "$runs/geometry.jsonl" --out "$runs/report.html"
    cat >&2 <<END

$runs/report.html             tables, frontier, curves, geometry: open it in a browser
$runs/summary.json            this table
$runs/seed*/*/metrics.jsonl   a line for each step      ($G2RL help metrics)
$runs/seed*/*/rollouts.jsonl  a line for each answer, with every number that made its advantage
$runs/seed*/*/checkpoint-*    the models, in the Hugging Face layout

next: $G2RL explain --model $runs/seed$first/${methods##* } --task $task --rollouts 8
END
}
for name in $grounds; do experiment "$name"; done
