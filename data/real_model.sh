#!/bin/sh
# The runs of doc/real-model.md: a pretrained language model learns word problems, first from worked
# answers, then by reinforcement learning. What is whole is not made again; a stopped run goes on.
#
#   sh data/real_model.sh tune       supervised: a model that answers in calculations
#   sh data/real_model.sh train      GRPO, G2RL, and G2RL without all-wrong groups, from there, an
#                                    adapter each, three seeds
#   sh data/real_model.sh answers    before and after, on problems that none of them has seen
#   sh data/real_model.sh alike      how alike answers are: the paper's Figure 3
#   sh data/real_model.sh mismatch   what another temperature of the features does to it
#   sh data/real_model.sh geometry   do features stand for the true gradients?
#
# MODEL=smollm2: SmolLM2-135M-Instruct as its authors publish it. PROBLEMS=problems: what
# data/word_problems.py writes. RUNS=runs/real: what is made here.
set -eu
cd "$(dirname "$0")/.."
G2RL=${G2RL:-./g2rl} MODEL=${MODEL:-smollm2} PROBLEMS=${PROBLEMS:-problems} RUNS=${RUNS:-runs/real}
as=@data/smollm2.txt # its chat template and its system text
test="--data $PROBLEMS/test.jsonl --problems"

run() { # COMMAND OPTION... --out DIR, which goes on where it is
    for out; do :; done
    if [ -f "$out/run.json" ]; then
        "$G2RL" "$1" --out "$out" --resume
    else
        "$G2RL" "$@"
    fi
}

for stage in "${@:-help}"; do
    case $stage in
    tune)
        run sft --model "$MODEL" $as --data "$PROBLEMS/sft.jsonl" --batch 16 --lr 3e-4 --steps 300 \
            --out "$RUNS/tuned"
        ;;
    train)
        for seed in ${SEEDS:-1 2 3}; do
            for row in grpo g2rl g2rl-right; do
                method=${row%-right} dead=full
                [ "$row" = "$method" ] || dead=right
                run train --model "$RUNS/tuned" $as --data "$PROBLEMS/train.jsonl" \
                    --method $method --dead-groups $dead --lora 16 --lr 3e-4 --prompts 8 --rollouts 8 \
                    --steps 50 --eval-every 50 --eval-data "$PROBLEMS/test.jsonl" --problems 150 \
                    --seed $seed --ledger short --out "$RUNS/seed$seed/$row"
            done
        done
        "$G2RL" report "$RUNS"/seed*/*
        ;;
    answers)
        "$G2RL" eval published="$MODEL" $as $test 50 --samples 16 --max-tokens 256 \
            --responses "$RUNS/published.jsonl"
        "$G2RL" eval tuned="$RUNS/tuned" grpo="$RUNS/seed1/grpo" g2rl="$RUNS/seed1/g2rl" $as \
            $test 150 --samples 16 --responses "$RUNS/answers.jsonl"
        ;;
    alike)
        for T in 1 0.8 0.6 "0.8 --feature-temperature 1"; do
            "$G2RL" geometry tuned="$RUNS/tuned" grpo="$RUNS/seed1/grpo" g2rl="$RUNS/seed1/g2rl" $as \
                $test 60 --samples 8 --encoder ngram --temperature $T
        done
        ;;
    mismatch)
        for T in "0.8" "0.8 --feature-temperature 1" "0.6" "0.6 --feature-temperature 1"; do
            for tokens in 16 64 256; do
                "$G2RL" geometry published="$MODEL" $as $test 40 --samples 8 --max-tokens $tokens \
                    --encoder ngram --temperature $T
            done
        done
        ;;
    geometry)
        "$G2RL" geometry published="$MODEL" $as $test 40 --samples 8 --max-tokens 16 --true-gradients
        for T in 1 0.8; do
            "$G2RL" geometry published="$MODEL" $as $test 40 --samples 8 --max-tokens 256 \
                --temperature $T --true-gradients
            "$G2RL" geometry tuned="$RUNS/tuned" $as $test 40 --samples 8 --temperature $T \
                --true-gradients
        done
        ;;
    *)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
done
