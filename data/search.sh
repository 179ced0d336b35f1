#!/bin/sh
# The one setting of run.sh that is searched for: how large the entropy bonus is on each ground. It
# runs GRPO and four bonuses with run.sh's own settings, on seed 101 and validation problems, of
# which run.sh uses neither; its report has each bonus's frontier against GRPO, by which the largest
# decides. (Learning rate, lambda and KL weight are the same for all, and not searched.)
#
#   sh data/search.sh [GROUND...]     countdown, maze, reach
#
# data/search.txt is what it printed.
set -eu
cd "$(dirname "$0")/.."
for ground in ${*:-countdown maze reach}; do
    RUNS=runs/search SEED=101 SPLIT=valid \
        METHODS="grpo entropy-0.003 entropy-0.01 entropy-0.03 entropy-0.1" ./run.sh --task "$ground"
done
