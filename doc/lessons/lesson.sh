#!/bin/sh
# The lessons of doc/lessons: each blanks a few functions, most of them of plain.c, for a student to
# write.
#   sh doc/lessons/lesson.sh         lists them
#   sh doc/lessons/lesson.sh N       makes lesson-N/ if it is not there, builds it, runs its tests
#   sh doc/lessons/lesson.sh check   of every lesson: blanked, each of its tests fails; with the
#                                    functions as they are, all of them pass
# A line of lessons.txt: number, page, minutes, functions as file:name, tests; tabs between.
#
# A function is found by its name: its definition begins in column 0, and its body goes from the "{"
# in column 0 to the "}" in column 0. What stands above it stays. A blanked body does nothing and
# returns 0, so that a student sees checks that fail, with numbers, and not a program that stops.
# Each test runs in a process of its own, with a limit on its time: what one of them does to the
# process, or a loop that never ends, keeps nobody from the others.
#
# The program's part of the tests, test_g2rl.o, is compiled once and copied; after a change of
# plain.c the compiler sees plain.c alone: seconds.
set -u
SECONDS_EACH=30 # of processor time, all threads together
tab=$(printf '\t')
say() { printf '%s\n' "$@"; }
list() { grep -v '^#' doc/lessons/lessons.txt; }
field() { list | awk -F '\t' -v n="$1" -v k="$2" '$1 == n { print $k }'; } # LESSON COLUMN
title() { sed -n '1s/^# //p' "doc/lessons/$(field "$1" 2).md"; }

# Prints FILE with the body of function NAME blanked; status 1 if it is not there once.
blank() { # FILE NAME LESSON
    awk -v name="$2" -v lesson="$3" '
        body && /^\}/ { body = 0 }
        !body { print }
        /^[a-z]/ && index($0, name "(") && $0 !~ /;$/ && $0 !~ /\}$/ {
            rest = substr($0, 1, index($0, name "(") - 1)
            if (rest ~ /[ *]$/) { head = 1; nothing = rest ~ /void $/ }
        }
        head && /^\{/ {
            head = 0; body = 1; found++
            print "    /* lesson " lesson ": yours */"
            if (!nothing) print "    return 0;"
        }
        END { exit found != 1 }' "$1"
}

# A copy of the program in DIR, blanked. If more than plain.c is blanked, all is compiled again there,
# and then unused functions and parameters are no news.
copy() { # LESSON DIR
    ${MAKE:-make} -s test_g2rl.o >&2 && mkdir -p "$2" &&
        cp -r ./*.c lib tests run.sh Makefile .flags "$2" && ln -s "$PWD/data" "$PWD/doc" "$2" &&
        cp test_g2rl.o "$2" || exit 1 # after the sources: newer
    for f in $(field "$1" 4); do
        blank "$2/${f%%:*}" "${f#*:}" "$1" >"$2/blanked" && mv "$2/blanked" "$2/${f%%:*}" || {
            say "lesson $1: ${f%%:*} has no function ${f#*:} with its { in column 0"
            exit 1
        }
        [ "${f%%:*}" = plain.c ] && continue
        sed 's/-Wno-unknown-pragmas/& -Wno-unused-parameter -Wno-unused-function/
            s/^CFLAGS ?= -O3/CFLAGS ?= -Og/' Makefile >"$2/Makefile" && rm -f "$2/test_g2rl.o"
    done
}

# Runs one test of ./test_g2rl in DIR; its status.
run_test() { # DIR TEST
    (
        cd "$1" && ulimit -t $SECONDS_EACH
        ./test_g2rl "=$2" 2>&1
    )
}

show() { # LESSON: its page, and where the student's functions are
    say "lesson $1: $(title "$1") (about $(field "$1" 3) minutes)"
    say "  the page   doc/lessons/$(field "$1" 2).md"
    for f in $(field "$1" 4); do
        file=lesson-$1/${f%%:*} name=${f#*:}
        at=$(awk -v n="$name(" '/^[a-z]/ && index($0, n) && !/;$/ { print FNR; exit }' "$file")
        say "  yours      $file:$at  $name"
    done
}

lesson() { # LESSON
    functions=$(field "$1" 4) tests=$(field "$1" 5) good=0 all=0
    [ -n "$(field "$1" 2)" ] || {
        say "no lesson $1; make lesson lists them" >&2
        exit 2
    }
    [ -n "$functions" ] || { # nothing to write
        show "$1"
        ${MAKE:-make} -s g2rl
        exit
    }
    made="is there: nothing in it was changed"
    [ -d "lesson-$1" ] || {
        (copy "$1" "lesson-$1.new") && mv "lesson-$1.new" "lesson-$1" || exit 1
        made="made: the whole program, without these functions"
    }
    show "$1"
    say "  lesson-$1/  $made" ""
    ${MAKE:-make} -s -C "lesson-$1" test_g2rl || exit 1
    for test in $tests; do
        all=$((all + 1))
        out=$(run_test "lesson-$1" "$test")
        status=$?
        printf '%s\n' "$out" | grep -v ' passed, '
        [ $status -eq 0 ] && good=$((good + 1))
        [ $status -lt 128 ] || say "FAIL  $test was ended by signal $((status - 128)): a bad pointer, \
or (24, 9) over $SECONDS_EACH s: a loop without an end?"
    done
    say "" "lesson $1: $good of $all tests pass" ""
    if [ $good -eq $all ]; then
        case $functions in plain.c*) run="make plain" ;; *) run="./run.sh --quick" ;; esac
        say "next: your program at work, two or three minutes   cd lesson-$1 && $run"
        for file in $(printf '%s\n' $functions | sed 's/:.*//' | sort -u); do
            say "      what we wrote                               diff $file lesson-$1/$file"
        done
        say "      the question at the end of the page"
    else
        say "next: write the functions above, then again    make lesson N=$1" \
            "      to begin once more                       rm -r lesson-$1"
        exit 1
    fi
}

# CHECK, one lesson: blanked, every test of it fails, by its own checks.
check_one() { # LESSON
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    (copy "$1" "$dir/blank") || exit 1
    ${MAKE:-make} -s -C "$dir/blank" test_g2rl >"$dir/log" 2>&1 &&
        ! grep -q 'warning:.*-W' "$dir/log" || {
        say "FAIL  lesson $1: blanked, it does not build, or not in silence:"
        head -n 5 "$dir/log"
        exit 1
    }
    for test in $(field "$1" 5); do
        run_test "$dir/blank" "$test" >"$dir/log"
        status=$?
        [ $status -eq 1 ] && grep -q '^FAIL' "$dir/log" || {
            say "FAIL  lesson $1: blanked, $test ends with status $status, not 1"
            exit 1
        }
    done
    say "ok    lesson $1: blanked, its tests fail: $(field "$1" 5)"
}

# CHECK, the sources as they are: every test of every lesson passes.
check_whole() {
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    ${MAKE:-make} -s test_g2rl || exit 1
    for page in $(list | cut -f 2); do
        [ -f "doc/lessons/$page.md" ] && grep -q "($page.md)" doc/lessons/README.md || {
            say "FAIL  $page: no such page, or README.md does not name it"
            exit 1
        }
    done
    for test in $(list | cut -f 5 | tr ' ' '\n' | sort -u); do
        run_test . "$test" >"$dir/log" || {
            say "FAIL  nothing blanked, and $test fails:"
            cat "$dir/log"
            exit 1
        }
    done
    say "ok    nothing blanked: the tests of all lessons pass"
}

case ${PWD##*/} in lesson-[0-9]*) # called in a student's directory
    set -- "${1:-${PWD##*/lesson-}}"
    cd ..
    ;;
esac
case ${1-} in
"")
    list | while IFS="$tab" read -r n page minutes _; do
        printf '%3d  %-50s %3d minutes   doc/lessons/%s.md\n' "$n" "$(title "$n")" "$minutes" "$page"
    done
    say "" "make lesson N=3: lesson 3 begins, or goes on"
    ;;
check)
    ${MAKE:-make} -s test_g2rl || exit 1
    (echo whole && list | awk -F '\t' '$4 != "" { print $1 }') |
        xargs -P "$(nproc 2>/dev/null || echo 2)" -I{} sh "$0" check-one {}
    ;;
check-one)
    if [ "$2" = whole ]; then check_whole; else check_one "$2"; fi
    ;;
*) lesson "$1" ;;
esac
