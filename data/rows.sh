# What a run of the experiment is: its ground, its row, its base model and its command. run.sh and
# data/experiment.sh read this file, so that both mean the same by a name.

# What each ground is, whole and quick: problems, supervised steps, steps of reinforcement learning,
# held-out problems and samples of each. `from`: the ground whose base models it begins with; `more`:
# options of train. `rate` and `entropy` are the learning rate and the entropy bonus that were found
# best on validation problems (`sh data/experiment.sh choices`).
ground() { # NAME QUICK
    case $1 in
    *countdown) rate=1e-4 entropy=0.03 ;;
    reach) rate=2e-4 entropy=0.1 ;;
    *) rate=5e-5 entropy=0.1 ;; # mazes
    esac
    preset=nano samples=16 every=10 groups=300 from=$1 more=""
    [ "$2" = no ] || every=15 groups=20
    case $1,$2 in
    countdown,no) task=countdown:numbers=4 sft=1600 steps=200 problems=500 ;;
    countdown,yes) task=countdown:numbers=3 sft=400 steps=30 problems=100 ;;
    maze,no) task=maze:size=5,loops=3 sft=1600 steps=200 problems=500 ;;
    maze,yes) task=maze:size=4,loops=2 sft=400 steps=30 problems=100 ;;
    reach,no) task=reach:digits=7,steps=4 sft=3200 steps=300 problems=400 ;;
    reach,yes) task=reach:digits=7,steps=3 sft=400 steps=30 problems=100 ;;
    tree,no) task=maze:size=5,loops=0 sft=1600 steps=200 problems=500 ;;
    tree-early,no) task=maze:size=5,loops=0 sft=400 steps=200 problems=500 ;;
    spelled,no) task=maze:size=5,loops=3,spellings=2 sft=1600 steps=200 problems=500 ;;
    larger,no) task=maze:size=5,loops=3 sft=1600 steps=200 problems=500 preset=tiny ;;
    pool-*,no)
        ground "${1#pool-}" no
        from=${1#pool-} steps=1000 samples=64 every=50 more="--data runs/experiment/$1.jsonl"
        ;;
    *)
        echo "no ground '$1'" >&2
        return 1
        ;;
    esac
    export task sft steps problems samples rate entropy every preset more
}

# The rows: the method (Eq 12 as printed, novelty from gradients, every group), what it is compared
# with, the other reading of Eq 12, dead groups of some kinds only, and controls in the place of
# gradients; each also with updates of one prompt, and with groups of 4 and of 64.
settings() {
    case $1 in
    grpo) echo "--method grpo" ;;
    entropy) echo "--method entropy --entropy-coef $entropy" ;;
    entropy-*) echo "--method entropy --entropy-coef ${1#entropy-}" ;;
    evol) echo "--method evol" ;;
    g2rl) echo "--method g2rl" ;;
    g2rl-text) echo "--method g2rl --shaping text" ;;
    g2rl-live) echo "--method g2rl --dead-groups zero" ;;
    g2rl-right) echo "--method g2rl --dead-groups right" ;;
    g2rl-wrong) echo "--method g2rl --dead-groups wrong" ;;
    g2rl-random) echo "--method g2rl --novelty random" ;;
    g2rl-count) echo "--method g2rl --novelty count" ;;
    g2rl-count-live) echo "--method g2rl --novelty count --dead-groups zero" ;;
    *-one) echo "$(settings "${1%-one}") --mini-batch 1" ;;
    *-4) echo "$(settings "${1%-4}") --prompts 64 --rollouts 4" ;;
    *-64) echo "$(settings "${1%-64}") --prompts 4 --rollouts 64" ;;
    *)
        echo "no row '$1'" >&2
        return 1
        ;;
    esac
}

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
base() { # THREADS SEED
    [ -d "$bases/seed$2/base/checkpoint-$sft" ] && return
    quietly "$bases/seed$2/base.log" "seed $2, base model" \
        "$G2RL" sft --preset "$preset" --task "$task" --steps "$sft" --batch 128 --lr 2e-3 \
        --seed "$2" --threads "$1" --out "$bases/seed$2/base" --force
}
train() { # THREADS SEED ROW [OPTION...]
    threads=$1 seed=$2 row=$3
    shift 3
    with=$(settings "$row") || exit 255
    quietly "$runs/seed$seed/$row.log" "seed $seed, $row" \
        "$G2RL" train --model "$bases/seed$seed/base" --task "$task" --steps "$steps" --lr "$lr" \
        --prompts 16 --rollouts 16 --eval-every "$every" --problems "$problems" \
        --samples "$samples" --split "$SPLIT" $more $with --seed "$seed" --threads "$threads" \
        --out "$runs/seed$seed/$row" --force "$@"
}
