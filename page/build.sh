#!/bin/sh
# Prints the page: page/index.html, where a line @NAME@ stands for a file of this folder and
# @NAME.wasm@ for a module, compressed, in base64.
#   sh page/build.sh >g2rl.html        after make wasm
set -eu
sed -n 's/.*@\(.*\.wasm\)@.*/\1/p' page/index.html | while read -r name; do
    gzip -9nc "$name" | base64 | tr -d '\n' >"$name.b64"
done
awk '
    /^@.*@$/ { name = "page/" substr($0, 2, length($0) - 2)
        while ((getline line <name) > 0) print line
        close(name); next }
    match($0, /@[a-z0-9-]*\.wasm@/) { name = substr($0, RSTART + 1, RLENGTH - 2) ".b64"
        printf "%s", substr($0, 1, RSTART - 1)
        while ((getline line <name) > 0) printf "%s", line
        print substr($0, RSTART + RLENGTH); next }
    { print }' page/index.html
rm -f ./*.wasm.b64
