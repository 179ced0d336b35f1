#!/bin/sh
# The search behind the experiment of run.sh: every method gets nine settings, three learning rates
# times three values of the knob of its own, on the same base models, seeds and validation problems;
# none of them is used by run.sh, which counts its seeds from 1.
#
#   sh data/search.sh [DIR]     runs what is not there yet into DIR (runs/search)
#
# Then each setting's score: the mean of pass@1, maj@16 and pass@16 (the three columns of the table)
# over the second half of training and over seeds. The best setting of each method is what run.sh
# uses, whichever method wins. G2RL=./g2rl SEEDS="101 102" JOBS=2: another program, seeds, cores.
set -eu
cd "$(dirname "$0")/.."
dir=${1:-runs/search}
G2RL=${G2RL:-./g2rl} SEEDS=${SEEDS:-"101 102"} JOBS=${JOBS:-$(nproc 2>/dev/null || echo 2)}
export G2RL dir
task=countdown:numbers=4

knobs() { # a method's values of its own knob, one a line: name, then options
    case $1 in
    grpo) printf '%s\n' "kl0 --kl-coef 0" "kl0.001 --kl-coef 0.001" "kl0.01 --kl-coef 0.01" ;;
    entropy) for x in 0.001 0.003 0.01; do echo "coef$x --entropy-coef $x"; done ;;
    evol) printf '%s\n' "ref --encoder ref" "ngram --encoder ngram" \
        "ref+entropy --encoder ref --entropy-coef 0.003" ;;
    *) for x in 0.3 1 3; do echo "lambda$x --lambda $x"; done ;;
    esac
}
options() {
    case $1 in
    g2rl-live) echo "--method g2rl --dead-groups zero" ;;
    g2rl-literal) echo "--method g2rl --shaping literal" ;;
    *) echo "--method $1" ;;
    esac
}
jobs() { # one run a line: its directory, its base, its options
    for seed in $SEEDS; do
        for lr in 1e-4 5e-5 2e-4; do
            for method in grpo entropy evol g2rl g2rl-live g2rl-literal; do
                knobs $method | while read -r knob with; do
                    echo "$dir/$seed/$method/$lr/$knob $dir/base$seed" \
                        "$(options $method) --lr $lr --seed $seed $with"
                done
            done
        done
    done
}
one() { # directory, base, options...
    out=$1 base=$2
    shift 2
    [ ! -d "$out/checkpoint-200" ] || return 0
    "$G2RL" train --model "$base" --task "$task" --steps 200 --prompts 16 --rollouts 16 \
        --eval-every 50 --problems 300 --samples 16 --threads 1 --force --out "$out" "$@" \
        2>"$out.log" || { cat "$out.log"; return 1; }
    rm -f "$out/rollouts.jsonl" "$out.log"
}
if [ "${1-}" = --one ]; then
    shift
    one "$@"
    exit
fi

for seed in $SEEDS; do
    [ -d "$dir/base$seed/checkpoint-1600" ] || "$G2RL" sft --preset nano --task "$task" \
        --steps 1600 --batch 128 --lr 2e-3 --seed "$seed" --out "$dir/base$seed" --force
done
jobs | while read -r out _; do mkdir -p "${out%/*}"; done
jobs | xargs -P "$JOBS" -L 1 sh data/search.sh --one

# Each setting: score, pass@1, maj@16, pass@16 in percent; the best of each method first.
for row in $(jobs | awk -v dir="$dir/" '{ print substr($1, length(dir) + 1) }' | cut -d/ -f2- | sort -u); do
    cat "$dir"/*/"$row"/eval.jsonl | awk -v row="$row" '
        function of(name) {
            match($0, "\"" name "\": [0-9.e-]+")
            split(substr($0, RSTART, RLENGTH), x, ": ")
            return 100 * x[2]
        }
        of("step") / 100 >= 100 { n++; one += of("pass@1"); maj += of("maj@16"); any += of("pass@16") }
        END {
            printf "%-30s %5.1f   %5.1f %5.1f %5.1f\n", row, (one + maj + any) / 3 / n, one / n,
                maj / n, any / n
        }'
done | sort -s -t/ -k1,1 | awk '{ split($1, a, "/"); print a[1], $0 }' | sort -s -k1,1 -k3,3nr |
    cut -d' ' -f2-
