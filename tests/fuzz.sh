#!/bin/sh
# Fuzzes targets of fuzz_g2rl one after the other, from copies of their seeds.
#   sh tests/fuzz.sh SECONDS [TARGET]...     seconds for each; all targets where none is named
# An input that takes more than 10 s or 2 GiB is a finding, like a crash or a leak. The inputs of
# findings stay where the output says; the status is then 1.
set -u
seconds=$1
shift
[ $# -gt 0 ] || set -- $(./fuzz_g2rl | sed '1d; s/ .*//')
dir=$(mktemp -d)
TMPDIR=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d) # files that targets write, in memory
export TMPDIR
trap 'rm -rf "$dir/corpus" "$dir/log" "$TMPDIR"; rmdir "$dir" 2>/dev/null' EXIT
trap 'exit 130' INT TERM
bad=0

# Small files that were made to be bad, where there are some: target, their folder, their names.
hostile() {
    case $1 in
    safetensors) set -- safetensors '*.safetensors' ;;
    index) set -- index '*.index.json' ;;
    config) set -- config config.json ;;
    problems) set -- task '*' ;;
    *) return ;;
    esac
    find "../shared/data/hostile/$1" -type f -name "$2" -size -17 2>/dev/null
}

for target; do
    mkdir -p "$dir/corpus"
    cp "tests/fuzz/$target"/* "$dir/corpus" || exit 1
    for file in $(hostile "$target"); do
        cp "$file" "$dir/corpus/$(echo "$file" | tr -s ./ _)"
    done
    if TARGET=$target ./fuzz_g2rl -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -close_fd_mask=3 -print_final_stats=1 -dict=tests/fuzz/words.dict \
        -artifact_prefix="$dir/$target-" "$dir/corpus" >"$dir/log" 2>&1; then
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
