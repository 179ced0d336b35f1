#!/bin/sh
# The runs of doc/experiment.md, those that its tables do not have yet, several side by side. It may
# be stopped and started again: a run that was not finished begins anew, a finished one is in the
# tables, which are all that is kept.
#
#   sh data/experiment.sh STAGE...      rates, entropy, primary, others, rate, one, sizes; and small,
#                                       of GROUNDS="tree tree-early spelled larger pool-maze pool-countdown"
#   sh data/experiment.sh list STAGE    its runs: ground, split, learning rate, seed, row
#   sh data/experiment.sh unfold        the tables as run directories, in runs/tables, for `g2rl report`
#   sh data/experiment.sh choices       what was chosen on validation problems, and by which numbers
#   sh data/experiment.sh tests         the primary tests, with Holm's correction
#   sh data/experiment.sh temperatures  the last models at other temperatures, means over seeds
#   sh data/experiment.sh sharpened     each row at T = 1 and GRPO at the T where it is as accurate
#   sh data/experiment.sh pool          pass@64 with a pool of training problems, and its differences
#
# Tables: doc/experiment/GROUND.csv, a line for each evaluation of each run, with the hash of the
# last weights; doc/experiment/temperatures.csv. JOBS=1 says how many runs go at a time,
# GROUNDS=maze which grounds.
set -eu
cd "$(dirname "$0")/.."
export G2RL=${G2RL:-./g2rl}
. data/rows.sh # ground, settings, base, train

tables=doc/experiment
columns="step pass@1 pass@2 pass@4 pass@8 pass@16 maj@16 distinct_right@16 phi/cos_mean phi/neg_ratio
    entropy completions/mean_length frac_copies frac_two_right frac_all_right frac_all_wrong
    problems distinct_problems samples"
pool=128 # training problems of the grounds pool-*
warm="temperature pass@1 pass@16 pass@64 maj@16 distinct_right@16 phi/cos_mean entropy frac_copies
    problems samples"

rate() { # of a ground
    (ground "$1" no && echo "$rate")
}
other_rate() {
    case $(rate "$1") in 5e-5) echo 1e-4 ;; 1e-4) echo 5e-5 ;; 2e-4) echo 1e-4 ;; esac
}

each() { # GROUND SPLIT LR FIRST LAST ROW...
    where="$1 $2 $3" first=$4 last=$5
    shift 5
    for s in $(seq "$first" "$last"); do
        for r in "$@"; do echo "$where $s $r"; done
    done
}
stage() {
    for g in ${GROUNDS:-countdown maze reach}; do
        case $1 in
        rates) for x in 5e-5 1e-4 2e-4; do each $g valid $x 101 103 grpo; done ;;
        entropy)
            each $g valid "$(rate $g)" 101 103 entropy-0.003 entropy-0.01 entropy-0.03 entropy-0.1
            ;;
        primary) each $g test "$(rate $g)" 11 20 grpo g2rl g2rl-random g2rl-count ;;
        others)
            each $g test "$(rate $g)" 11 15 entropy evol g2rl-live g2rl-right g2rl-wrong \
                g2rl-count-live g2rl-text
            ;;
        rate) each $g test "$(other_rate $g)" 11 15 grpo g2rl ;;
        one) each $g test "$(rate $g)" 11 13 grpo-one g2rl-one ;;
        sizes) each $g test "$(rate $g)" 11 13 grpo-4 g2rl-4 grpo-64 g2rl-64 ;;
        small) each $g test "$(rate $g)" 11 13 grpo g2rl g2rl-random g2rl-count ;;
        *)
            echo "experiment.sh: no stage '$1'" >&2
            return 1
            ;;
        esac
    done
}

# Values of JSON lines, as CSV: "a,b,.." of the members that are asked for.
csv() { # NAMES
    awk -v names="$1" 'BEGIN { n = split(names, name, /[ \n]+/) } {
        for (i = 1; i <= n; i++) {
            at = index($0, "\"" name[i] "\": ")
            v = at ? substr($0, at + length(name[i]) + 4) : ""
            sub(/[,}].*/, "", v)
            printf("%s%s", i > 1 ? "," : "", v ~ /^[-0-9]/ ? sprintf("%.6g", v) : v)
        }
        print ""
    }'
}
add() { # TABLE HEADER LINES: the lines of a file, by one write, since others add theirs
    mkdir -p "$tables"
    [ -s "$1" ] || echo "$2" >"$1"
    cat "$3" >>"$1"
}
header() { echo $* | tr ' ' ','; }

# A run, its lines of the table, and for three seeds its answers at other temperatures.
one() { # GROUND SPLIT LR SEED ROW
    table=$tables/$1.csv key="$2,$3,$4,$5,"
    ! grep -q "^$key" "$table" 2>/dev/null || return 0
    ground "$1" no
    lr=$3 SPLIT=$2 bases=runs/experiment/$from runs=runs/experiment/$1/$2-$3
    case $1 in
    pool-*)
        columns="$columns pass@64"
        mkdir -p runs/experiment
        "$G2RL" data --task "$task" --problems $pool --seed 11 >"runs/experiment/$1.jsonl.$4$5"
        mv "runs/experiment/$1.jsonl.$4$5" "runs/experiment/$1.jsonl"
        ;;
    esac
    if [ "$5" = base ]; then
        base 1 "$4"
        return
    fi
    run=$runs/seed$4/$5
    grep -q "\"step\": $steps, \"pass" "$run/eval.jsonl" 2>/dev/null ||
        train 1 "$4" "$5" --ledger short
    hash=$(sed -n '$s/.*"weights_hash": "\([0-9a-f]*\)".*/\1/p' "$run/metrics.jsonl")
    if [ "$2" = test ] && [ "$4" -le 13 ] && [ "$3" = "$rate" ] &&
        ! grep -qs "^$1,$3,$4,$5," $tables/temperatures.csv; then
        "$G2RL" eval --model "$run" --task "$task" --problems 200 --samples 64 \
            --temperature 0.7,1,1.3,1.6 --json --seed "$4" --threads 1 2>>"$runs/seed$4/$5.log" |
            grep '"temperature"' | csv "$warm" | sed "s/^/$1,$3,$4,$5,/" >"$run/lines"
        add $tables/temperatures.csv "$(header ground lr seed row $warm)" "$run/lines"
    fi
    csv "$columns" <"$run/eval.jsonl" | sed "s/^/$key/; \$s/\$/,$hash/; \$!s/\$/,/" >"$run/lines"
    add "$table" "$(header split lr seed row $columns weights_hash)" "$run/lines" # last: it is done
    rm -f "$run/rollouts.jsonl"
    [ "$4" = 11 ] || rm -rf "$run"/checkpoint-*
}

side_by_side() { xargs -P "${JOBS:-$(nproc)}" -L 1 sh data/experiment.sh --step; }

unfold() {
    rm -rf runs/tables
    for table in "$tables"/*.csv; do
        g=$(basename "$table" .csv)
        [ "$g" != temperatures ] || continue
        ground "$g" no
        awk -F, -v root="runs/tables/$g" -v task="$task" -v steps="$steps" '
            NR == 1 { for (i = 5; i < NF; i++) name[i] = $i; n = NF; next }
            {
                dir = root "/" $1 "-" $2 "/seed" $3 "/" $4
                if (dir != last) {
                    system("mkdir -p " dir " && : >" dir "/metrics.jsonl")
                    printf("{\"command\": \"train\", \"task\": \"%s\", \"steps\": %d, ",
                        task, steps) > (dir "/run.json")
                    printf("\"split\": \"%s\", \"lr\": %s, \"seed\": %s, ", $1, $2,
                        $3) > (dir "/run.json")
                    size = $4 ~ /-4$/ ? 4 : $4 ~ /-64$/ ? 64 : 16
                    printf("\"prompts\": %d, \"rollouts\": %d}\n", 256 / size,
                        size) > (dir "/run.json")
                    close(dir "/run.json")
                    if (last != "") close(last "/eval.jsonl")
                    last = dir
                }
                line = ""
                for (i = 5; i < n; i++)
                    if ($i != "") line = line (line == "" ? "" : ", ") "\"" name[i] "\": " $i
                print "{" line "}" > (dir "/eval.jsonl")
            }' "$table"
    done
}

# GRPO's pass@1, mean over the second half of training and three seeds, at each rate; then, at the
# rate that was chosen, the frontier of each entropy bonus against GRPO.
choices_table() {
    for g in ${GROUNDS:-countdown maze reach}; do
        [ -f "$tables/$g.csv" ] || continue
        ground $g no
        echo "$g, pass@1 of grpo by learning rate (chosen: $rate):"
        awk -F, -v half=$((steps / 2)) '
            $1 == "valid" && $4 == "grpo" && $5 >= half { sum[$2] += $6; n[$2]++ }
            END { for (rate in n) printf("  %-5s %.4f\n", rate, sum[rate] / n[rate]) }' \
            "$tables/$g.csv" | sort -k 2,2gr
        echo "$g, frontier of the entropy bonus by its size (chosen: $entropy):"
        "$G2RL" report runs/tables/$g/valid-$rate/seed*/* --json --out runs/tables/page.html \
            2>/dev/null | sed -n 's/^ *"entropy-\([0-9.]*\)": .*"frontier": {/\1 {/p' |
            while read -r size rest; do
                printf '  %-5s %+.4f\n' "$size" "$(echo "$rest" | csv value)"
            done
    done
}

# The nine primary tests: g2rl minus three rows on each ground, Student's t over seeds. Holm: the
# k-th smallest p of n times n - k + 1, never less than the one before; 1 where more than two seeds
# are missing.
primary_tests() {
    for g in ${GROUNDS:-countdown maze reach}; do
        runs=runs/tables/$g/test-$(rate $g)
        for row in grpo g2rl-random g2rl-count; do
            "$G2RL" report "$runs"/seed*/g2rl "$runs"/seed*/$row --against $row --json \
                --out runs/tables/page.html 2>/dev/null | sed -n 's/^ *"g2rl": .*"frontier": //p' |
                sed 's/"interval": \[\([^,]*\), \([^]]*\)\]/"low": \1, "high": \2/' |
                csv "value low high p seeds missing measure" | sed "s/^/$g,$row,/"
        done
    done | awk -F, -v OFS=, '$8 > 2 || $6 == "" { $6 = 1 } { print }' | sort -t, -k 6,6g | awk -F, '
        { line[NR] = $0; p[NR] = $6 }
        END {
            printf("%-10s %-12s %-25s %-19s %5s %7s %8s %8s\n", "ground", "g2rl minus",
                "difference", "95 %", "seeds", "missing", "p", "Holm")
            for (i = 1; i <= NR; i++) {
                split(line[i], f, ",")
                q = p[i] * (NR - i + 1)
                q = q > 1 ? 1 : q
                last = q > last ? q : last
                share = f[9] ~ /pass/
                scale = share ? 100 : 1
                form = share ? "%+.2f" : "%+.3f"
                printf("%-10s %-12s %-25s %-19s %5d %7d %8.2g %8.2g\n", f[1], f[2],
                    sprintf(form " %s", scale * f[3], share ? "points of pass@16" : "answers of 16"),
                    sprintf("[" form ", " form "]", scale * f[4], scale * f[5]), f[7], f[8], p[i],
                    last)
            }
        }'
}

temperature_table() {
    awk -F, '
        NR == 1 { next }
        {
            key = sprintf("%-14s %-16s %4s", $1, $4, $5)
            if (!(key in n)) order[++keys] = key
            n[key]++
            for (i = 6; i <= 10; i++) sum[key, i] += $i
        }
        END {
            printf("%-14s %-16s %4s %5s %7s %7s %7s %7s %9s\n", "ground", "row", "T", "seeds",
                "pass@1", "pass@16", "pass@64", "maj@16", "distinct")
            for (k = 1; k <= keys; k++) {
                key = order[k]
                printf("%s %5d", key, n[key])
                for (i = 6; i <= 9; i++) printf(" %7.1f", 100 * sum[key, i] / n[key])
                printf(" %9.2f\n", sum[key, 10] / n[key])
            }
        }' "$tables/temperatures.csv"
}

# What grpo's last model has at the temperature where it is as accurate as a row's at T = 1, by a
# straight line between two temperatures; the row minus that, Student's t over seeds.
sharpened() {
    awk -F, '
        NR == 1 { next }
        {
            run = $1 "," $3 "," $4
            T[run, ++at[run]] = $5
            right[run, at[run]] = $6
            variety[run, at[run]] = $1 ~ /countdown/ ? 100 * $7 : $10
            if ($5 == 1 && $4 != "grpo") {
                row[++rows] = $1 "," $4
                key[rows] = run
                goal[rows] = $6
                has[rows] = variety[run, at[run]]
                grpo[rows] = $1 "," $3 ",grpo"
            }
        }
        function line(x, i, a) { return a[x, i] + share * (a[x, i + 1] - a[x, i]) }
        END {
            split("12.706 4.303 3.182 2.776", quantile, " ") # of t, 97.5 %, by n - 1
            for (i = 1; i <= rows; i++) {
                if (!(row[i] in n)) order[++groups] = row[i]
                n[row[i]] += 0
                x = grpo[i]
                for (k = 1; k < at[x]; k++) {
                    share = (goal[i] - right[x, k]) / (right[x, k + 1] - right[x, k])
                    if (share < 0 || share > 1) continue
                    d = has[i] - line(x, k, variety)
                    n[row[i]]++
                    sum[row[i]] += d
                    square[row[i]] += d * d
                    warmth[row[i]] += line(x, k, T)
                    accuracy[row[i]] += goal[i]
                    break
                }
            }
            printf("%-14s %-16s %5s %7s %9s  %s\n", "ground", "row", "seeds", "pass@1", "T of grpo",
                "row minus grpo")
            for (i = 1; i <= groups; i++) {
                g = order[i]
                printf("%-14s %-16s %5d", substr(g, 1, index(g, ",") - 1),
                    substr(g, index(g, ",") + 1), n[g])
                if (n[g] > 1) {
                    mean = sum[g] / n[g]
                    s = sqrt((square[g] - n[g] * mean * mean) / (n[g] - 1) / n[g]) * quantile[n[g] - 1]
                    form = "%+.2f [%+.2f, %+.2f] answers of 16"
                    if (g ~ /countdown/) form = "%+.1f [%+.1f, %+.1f] points of pass@16"
                    printf(" %7.1f %9.2f  " form, 100 * accuracy[g] / n[g], warmth[g] / n[g], mean,
                        mean - s, mean + s)
                }
                print ""
            }
        }' "$tables/temperatures.csv"
}

# With a pool of training problems: means over seeds by row and step; then g2rl minus each other row
# at the last step, Student's t over three seeds.
pool_table() {
    awk -F, '
        BEGIN { split("pass@1 pass@16 pass@64", name, " ") }
        NR == 1 {
            for (i = 1; i <= NF; i++) column[$i] = i
            next
        }
        $5 == 200 || $5 == 1000 || $5 == 0 && $4 == "grpo" {
            key = sprintf("%-12s %5d", $5 ? $4 : "base", $5)
            if (!(key in n)) order[++keys] = key
            n[key]++
            seeds[$3] = 1
            for (i = 1; i <= 3; i++) {
                x = 100 * $column[name[i]]
                sum[key, i] += x
                if ($5 == 1000) last[$4, $3, i] = x
            }
        }
        END {
            printf("%-12s %5s %5s %8s %8s %8s\n", "row", "step", "seeds", name[1], name[2], name[3])
            for (k = 1; k <= keys; k++) {
                key = order[k]
                printf("%s %5d", key, n[key])
                for (i = 1; i <= 3; i++) printf(" %8.1f", sum[key, i] / n[key])
                print ""
            }
            printf("%-14s %-22s %-22s %s\n", "g2rl minus", name[1], name[2], name[3])
            split("grpo g2rl-random g2rl-count", other, " ")
            for (r = 1; r <= 3; r++) {
                if (n[sprintf("%-12s %5d", other[r], 1000)] != 3) continue
                line = sprintf("%-14s", other[r])
                for (i = 1; i <= 3; i++) {
                    total = square = 0
                    for (seed in seeds) {
                        d = last["g2rl", seed, i] - last[other[r], seed, i]
                        total += d
                        square += d * d
                    }
                    mean = total / 3
                    half = 4.303 * sqrt((square - 3 * mean * mean) / 2 / 3) # of t, 97.5 %, n = 3
                    line = line sprintf(" %-22s", sprintf("%+.1f [%+.1f, %+.1f]", mean, mean - half,
                        mean + half))
                }
                sub(/ *$/, "", line)
                print line
            }
        }' "$tables/pool-countdown.csv"
}

case ${1-} in
--step)
    shift
    one "$@"
    ;;
list) stage "${2-}" ;;
unfold) unfold ;;
temperatures) temperature_table ;;
sharpened) sharpened ;;
pool) pool_table ;;
choices)
    unfold
    choices_table
    ;;
tests)
    unfold
    primary_tests
    ;;
'')
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
*)
    for s in "$@"; do
        stage "$s" | awk '!($1 $4 in seen) { seen[$1 $4]; print $1, $2, $3, $4, "base" }' |
            side_by_side
        stage "$s" | side_by_side
    done
    ;;
esac
