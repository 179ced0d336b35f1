#!/bin/sh
# The main job: teaches a small model from nothing to play the countdown game, then goes on from it
# with GRPO and with G2RL, on the same prompts, and compares all three on problems they never saw.
#
#   ./run.sh           about 2 minutes on 2 cores; four numbers a problem
#   ./run.sh --quick   under a minute; three numbers, fewer steps: the same path
#
# The base model is kept in runs/ and used again by the next run. Give seeds or threads with
#   SEED=2 THREADS=1 ./run.sh
set -eu
cd "$(dirname "$0")"

G2RL=${G2RL:-./g2rl} # another build of the program, e.g. ./g2rl_debug
SEED=${SEED:-1}
THREADS=${THREADS:-0} # 0: all cores; the results do not depend on it

case "${1-}" in
--quick) runs=runs/quick task=countdown:numbers=3 sft=400 steps=30 problems=100 samples=16 ;;
"") runs=runs task=countdown:numbers=4 sft=1600 steps=200 problems=300 samples=32 ;;
*)
    echo "usage: ./run.sh [--quick]" >&2
    exit 2
    ;;
esac

say() { printf '\n== %s\n' "$*" >&2; }

say "building"
[ "$G2RL" != ./g2rl ] || make -s

base=$runs/base-seed$SEED
if [ -d "$base/checkpoint-$sft" ]; then
    say "the base model is there: $base"
else
    say "base model: $sft supervised steps of 128 solved problems, from random weights"
    "$G2RL" sft --preset nano --task "$task" --steps "$sft" --batch 128 --lr 2e-3 \
        --seed "$SEED" --threads "$THREADS" --out "$base" --force
fi

for method in grpo g2rl; do
    say "$method: $steps steps of 16 prompts x 16 rollouts, from that base model"
    "$G2RL" train --method "$method" --model "$base" --task "$task" --steps "$steps" \
        --prompts 16 --rollouts 16 --lr 1e-4 --kl-coef 1e-3 \
        --seed "$SEED" --threads "$THREADS" --out "$runs/$method" --force
done

say "evaluation: $problems held-out problems x $samples samples, the same for all three"
"$G2RL" eval --json --task "$task" --split test --problems "$problems" --samples "$samples" \
    --seed "$SEED" --threads "$THREADS" \
    base="$base" grpo="$runs/grpo" g2rl="$runs/g2rl" >"$runs/summary.json.tmp"
mv "$runs/summary.json.tmp" "$runs/summary.json"

cat >&2 <<END

pass@1: share of right answers. maj@16: is the most frequent of 16 answers right.
pass@16: is any of 16 right. In brackets: 95 % intervals over problems. cosine, negative:
mean and share below zero of the cosines between gradient features of answers to one problem.

$runs/summary.json            this table, with pass@k for every k
$runs/*/metrics.jsonl         a line for each step      (./g2rl help metrics)
$runs/*/rollouts.jsonl        a line for each answer, with every number that made its advantage
$runs/*/checkpoint-*          the models, in the Hugging Face layout

next: ./g2rl explain --model $runs/g2rl --task $task --rollouts 8
END
