#!/bin/sh
# Fuzzes targets of fuzz_g2rl one after the other, from copies of their seeds.
#   sh data/fuzz.sh SECONDS [TARGET]...     seconds for each; all targets where none is named
# A unit over 10 s or 2 GiB is a finding, like a crash or a leak. The inputs of findings stay in a
# directory that is named in the end; the status is then 1.
set -u
seconds=$1
shift
[ $# -gt 0 ] || set -- $(./fuzz_g2rl | sed '1d; s/ .*//')
dir=$(mktemp -d)
trap 'rm -rf "$dir/corpus" "$dir/log"; rmdir "$dir" 2>/dev/null' EXIT
bad=0
hostile=../shared/data/hostile

for target; do
    mkdir -p "$dir/corpus"
    cp "data/fuzz/$target"/* "$dir/corpus" || exit 1
    case $target in
    safetensors | index | config) files=$(find $hostile/$target -name '*.safetensors' -o -name '*.json') ;;
    problems) files=$(find $hostile/task -type f) ;;
    *) files="" ;;
    esac 2>/dev/null
    for file in $files; do # of equal names, another number for each
        [ "$(wc -c <"$file")" -gt 16384 ] || cp "$file" "$dir/corpus/$(echo "$file" | tr / _)"
    done
    dictionary=""
    [ ! -f "data/fuzz/$target.dict" ] || dictionary="-dict=data/fuzz/$target.dict"
    if TARGET=$target ./fuzz_g2rl -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -close_fd_mask=3 -print_final_stats=1 $dictionary -artifact_prefix="$dir/$target-" \
        "$dir/corpus" >"$dir/log" 2>&1; then
        found="ok   "
    else
        found="FOUND" bad=1
    fi
    echo "$found $target: $(sed -n 's/stat::number_of_executed_units: *//p' "$dir/log") inputs," \
        "$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$dir/log" | tail -n 1)"
    [ "$found" = "ok   " ] || grep -E 'ERROR|SUMMARY|Test unit written|    #[0-9]+ .* in ' "$dir/log" |
        head -n 20
    rm -rf "$dir/corpus"
done
exit $bad
