#!/bin/sh
# Plants each bug of tests/mutants.txt in a copy of the sources and sees the named test fail.
#   sh tests/mutants.sh CC "FLAGS"          all of them, one job a core
#   sh tests/mutants.sh CC "FLAGS" K/N      every N-th from number K on; of the others, their texts
#   sh tests/mutants.sh CC "FLAGS" N        number N alone
# A line of mutants.txt: file, text, replacement, test, separated by tabs; the text occurs once in
# the file. Lines that start with # are comments.
set -u
cc=$1 flags=$2
list() { grep -v '^#' tests/mutants.txt | grep .; }

if [ $# -lt 3 ] || [ "${3#*/}" != "$3" ]; then
    n=$(list | wc -l)
    part=${3:-1/1}
    lost=$(list | while IFS="$(printf '\t')" read -r file text _; do
        [ "$(grep -cF -- "$text" "$file")" -eq 1 ] || printf '%s: %s\n' "$file" "$text"
    done)
    [ -z "$lost" ] || { printf 'not there once:\n%s\n' "$lost"; exit 1; }
    out=$(seq "${part%/*}" "${part#*/}" "$n" | xargs -P "$(nproc 2>/dev/null || echo 2)" -I{} sh "$0" "$cc" "$flags" {})
    printf '%s\n' "$out" | sort -n
    missed=$(printf '%s\n' "$out" | grep -vc ' caught ')
    echo "mutants: $(printf '%s\n' "$out" | grep -c ' caught ') passed, $missed failed"
    [ "$missed" -eq 0 ]
    exit
fi

tab=$(printf '\t')
line=$(list | sed -n "$3p")
file=$(printf '%s' "$line" | cut -d "$tab" -f 1)
text=$(printf '%s' "$line" | cut -d "$tab" -f 2)
new=$(printf '%s' "$line" | cut -d "$tab" -f 3)
test=$(printf '%s' "$line" | cut -d "$tab" -f 4)
say() { printf '%s\n' "$1"; }
limit=$(command -v timeout >/dev/null && echo "timeout 120") # macOS has none
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp -r ./*.c lib tests "$dir" && ln -s "$PWD/data" "$dir/data"
if ! TEXT=$text NEW=$new awk '
    BEGIN { t = ENVIRON["TEXT"]; n = ENVIRON["NEW"] }
    { i = index($0, t); if (i) { c++; $0 = substr($0, 1, i - 1) n substr($0, i + length(t)) } print }
    END { exit c != 1 }' "$file" >"$dir/$file"; then
    say "$3 UNUSABLE: the text does not occur once in $file: $text"
elif ! (cd "$dir" && $cc $flags -O0 -w test_g2rl.c tests/plain_oracle.c -o test_g2rl -lm) 2>"$dir/log"; then
    say "$3 UNUSABLE: does not compile: $file: $text -> $new: $(head -n 1 "$dir/log")"
elif (cd "$dir" && $limit ./test_g2rl "=$test" >"$dir/log" 2>&1); then
    say "$3 MISSED $file: $text -> $new ($test)"
else
    say "$3 caught $file: $text ($test)"
fi
