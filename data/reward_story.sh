#!/bin/sh
# An example of a reward of one's own (see: g2rl train --help). It pays for stories about animals:
# 1 for each kind of animal that the story mentions, at most 3, and -1 if there is none.
#   g2rl train --model DIR --data PROMPTS --reward-cmd data/reward_story.sh
#   g2rl train --model DIR --data PROMPTS --reward-cmd 'data/reward_story.sh cow pig hen'
# One request a line on stdin, {"prompt": "..", "response": "..", "answer": ".."}; one answer a line
# on stdout. A quote inside a JSON string has a backslash before it, so the patterns below cannot
# match inside a text. A shell's read and printf pass each line on at once; most other programs must
# be told to flush.
[ $# -gt 0 ] || set -- dog cat bird bear rabbit fish frog mouse

while IFS= read -r line; do
    story=${line#*'", "response": "'}
    story=${story%'", "answer": "'*}
    count=0
    found=
    for animal; do
        case $story in
        *"$animal"*)
            count=$((count + 1))
            found="$found $animal"
            ;;
        esac
    done
    [ "$count" -le 3 ] || count=3
    [ "$count" -gt 0 ] || count=-1
    printf '{"reward": %d, "reason": "animals:%s"}\n' "$count" "${found:- none}"
done
