#!/bin/sh
# The experiment: teaches a small model from nothing to play the countdown game, then goes on from
# it with each method, on the same prompts and the same budget, and compares them all along their
# way on problems that none of them ever saw.
#
#   ./run.sh             one seed: 3 to 5 minutes on 2 cores
#   ./run.sh --seeds 5   five seeds, each with a base model of its own
#   ./run.sh --quick     about a minute; three numbers, fewer steps: the same path
#
# Runs go side by side, as many as there are cores; JOBS=1 SEED=7 G2RL=./g2rl_debug change how many,
# the first seed and the program. The results do not depend on JOBS. A base model that is there is
# used again.
set -eu
cd "$(dirname "$0")"

export G2RL=${G2RL:-./g2rl}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # threads of runs side by side sleep, not spin
seeds=1 runs=runs task=countdown:numbers=4 sft=1600 steps=200 every=25 problems=500 groups=300

# The methods, and three variants of g2rl: live groups only; the control, whose novelty is dealt out
# at random; and Eq 12 as printed. Each has the settings that data/search.sh found best for it.
methods="grpo entropy evol g2rl g2rl-live g2rl-random g2rl-literal"
settings() {
    case $1 in
    grpo) echo "--method grpo --lr 1e-4" ;;
    entropy) echo "--method entropy --lr 1e-4 --entropy-coef 0.003" ;;
    evol) echo "--method evol --lr 5e-5 --encoder ref" ;;
    g2rl) echo "--method g2rl --lr 1e-4 --lambda 0.3" ;;
    g2rl-live) echo "--method g2rl --lr 1e-4 --lambda 0.3 --dead-groups zero" ;;
    g2rl-random) echo "--method g2rl --lr 1e-4 --lambda 0.3 --novelty random" ;;
    g2rl-literal) echo "--method g2rl --lr 5e-5 --lambda 0.3 --shaping literal" ;;
    esac
}

say() { printf '\n== %s\n' "$*" >&2; }

# Runs a command beside others; its progress goes to LOG, and one line says when it is done.
quietly() { # LOG WHAT COMMAND...
    log=$1 what=$2 start=$(date +%s)
    shift 2
    mkdir -p "${log%/*}"
    "$@" 2>"$log" || {
        cat "$log" >&2
        exit 255 # xargs starts no other
    }
    echo "   $what: $(($(date +%s) - start)) s" >&2
}
base() { # SEED
    [ -d "$runs/seed$1/base/checkpoint-$sft" ] && return
    quietly "$runs/seed$1/base.log" "seed $1, base model" \
        "$G2RL" sft --preset nano --task "$task" --steps "$sft" --batch 128 --lr 2e-3 \
        --seed "$1" --threads "$threads" --out "$runs/seed$1/base" --force
}
train() { # SEED METHOD
    quietly "$runs/seed$1/$2.log" "seed $1, $2" \
        "$G2RL" train --model "$runs/seed$1/base" --task "$task" --steps "$steps" \
        --prompts 16 --rollouts 16 --eval-every "$every" --problems "$problems" --samples 16 \
        $(settings "$2") --seed "$1" --threads "$threads" --out "$runs/seed$1/$2" --force
}

if [ "${1-}" = --step ]; then # one of those that xargs starts below, with the shape of all
    runs=$2 task=$3 sft=$4 steps=$5 every=$6 problems=$7 threads=$8
    shift 8
    "$@"
    exit
fi

while [ $# -gt 0 ]; do
    case $1 in
    --quick)
        runs=runs/quick task=countdown:numbers=3 sft=400 steps=30 every=15 problems=100 groups=20
        ;;
    --seeds)
        seeds=${2-}
        case $seeds in '' | 0* | *[!0-9]*)
            echo "run.sh: --seeds: expected a number from 1 on" >&2
            exit 2
            ;;
        esac
        shift
        ;;
    *)
        echo "usage: ./run.sh [--quick] [--seeds N]" >&2
        exit 2
        ;;
    esac
    shift
done

cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
JOBS=${JOBS:-$cores} first=${SEED:-1}
last=$((first + seeds - 1))
# How many; on stdin, a line each: a function and its arguments. The cores are shared by as many as
# run at a time, which are fewer in the last round.
side_by_side() {
    jobs=$(($1 < JOBS ? $1 : JOBS))
    awk -v n="$1" -v jobs="$jobs" -v cores="$cores" '{
        last = n % jobs
        threads = int(cores / (NR > n - last ? last : jobs))
        print (threads > 1 ? threads : 1), $0
    }' | xargs -P "$jobs" -L 1 \
        sh run.sh --step "$runs" "$task" "$sft" "$steps" "$every" "$problems"
}

say "building"
[ "$G2RL" != ./g2rl ] || make -s

say "base models: $sft supervised steps of 128 solved problems, from random weights"
echo "   (how far each run is: tail -f $runs/seed$first/*.log)" >&2
seq "$first" "$last" | sed 's/^/base /' | side_by_side "$seeds"

say "each method: $steps steps of 16 prompts x 16 rollouts, from that base model"
for seed in $(seq "$first" "$last"); do
    for method in $methods; do echo "train $seed $method"; done
done | side_by_side $((seeds * $(echo $methods | wc -w)))

say "geometry of the responses to $groups problems, seed $first"
models=
for method in base $methods; do
    models="$models $method=$runs/seed$first/$method"
done
"$G2RL" geometry $models --task "$task" --problems "$groups" --samples 8 --true-gradients --json \
    --seed "$first" >"$runs/geometry.jsonl.tmp"
mv "$runs/geometry.jsonl.tmp" "$runs/geometry.jsonl"

say "the table"
all=
for seed in $(seq "$first" "$last"); do
    for method in $methods; do all="$all $runs/seed$seed/$method"; done
done
"$G2RL" report $all --json --geometry "$runs/geometry.jsonl" --out "$runs/report.html" \
    >"$runs/summary.json.tmp"
mv "$runs/summary.json.tmp" "$runs/summary.json"
"$G2RL" report $all --geometry "$runs/geometry.jsonl" --out "$runs/report.html"

cat >&2 <<END

$runs/report.html             curves, geometry, groups of answers: open it in a browser
$runs/summary.json            this table
$runs/seed*/*/metrics.jsonl   a line for each step      (./g2rl help metrics)
$runs/seed*/*/rollouts.jsonl  a line for each answer, with every number that made its advantage
$runs/seed*/*/checkpoint-*    the models, in the Hugging Face layout

next: ./g2rl explain --model $runs/seed$first/g2rl --task $task --rollouts 8
END
