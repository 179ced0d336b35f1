#!/usr/bin/env python3
"""data/word_problems.py: what it makes of an answer; and where ../shared has the sets, all that it
writes: each calculation holds, and the last one is the answer; and a table of doc/real-model.md."""

import json
import os
import re
import subprocess
import sys
import tempfile

os.chdir(os.path.join(os.path.dirname(__file__), ".."))
sys.path.insert(0, "data")
from word_problems import gsm8k_steps, svamp_steps

checks = failed = 0
SETS = "../shared/data/sets"


def check(ok, what):
    global checks, failed
    checks += 1
    if not ok:
        failed += 1
        print("failed:", what)


def equal(got, expected):
    check(got == expected, f"{got!r}, expected {expected!r}")


equal(gsm8k_steps("48/2 = <<48/2=24>>24, <<48+24 = 72>>72.\n#### 72"), "48/2=24\n48+24=72\n#### 72")
equal(gsm8k_steps("<<.5*2,400=1200.00>>1,200.\n#### 1,200"), "0.5*2400=1200\n#### 1200")
equal(gsm8k_steps("No calculation.\n#### 3"), None)
equal(gsm8k_steps("<<6+6=12>>12, and half of it.\n#### 6"), None)
equal(gsm8k_steps("<<1+1=2>><<2+1=3>><<3+1=4>><<4+1=5>>\n#### 5"), None)
equal(svamp_steps("( 290.0 / 2.0 )"), "290/2=145\n#### 145")
equal(svamp_steps("( 6.0 - ( 2.0 + 3.0 ) )"), "2+3=5\n6-5=1\n#### 1")
equal(svamp_steps("( ( 1.5 * 3.0 ) - 0.25 )"), "1.5*3=4.5\n4.5-0.25=4.25\n#### 4.25")

if os.path.isdir(SETS):
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, "data/word_problems.py", f"{SETS}/gsm8k/train.jsonl",
                        f"{SETS}/svamp/test.jsonl", out], check=True, stdout=subprocess.DEVNULL)
        page = open("doc/real-model.md", encoding="utf-8").read()
        code, table = re.search(r"```python\n(.*?)```\n\n((?:    [^\n]*\n)+)", page, re.S).groups()
        os.symlink(os.path.abspath("doc"), f"{out}/doc")
        os.symlink(out, f"{out}/problems")
        got = subprocess.run([sys.executable, "-c", code], cwd=out, capture_output=True, text=True)
        equal(["    " + line for line in got.stdout.splitlines()], table.splitlines())
        lines = {name: [json.loads(line) for line in open(f"{out}/{name}.jsonl", encoding="utf-8")]
                 for name in ("sft", "train", "test")}
    ids = {name: {line["ID"] for line in lines[name]} for name in ("train", "test")}
    check(len(lines["train"]) == len(lines["test"]) == 500 and not ids["train"] & ids["test"],
          "two halves")
    check(len(lines["sft"]) > 4500, f"{len(lines['sft'])} conversations")
    for line in lines["sft"]:
        *steps, answer = line["messages"][1]["content"].split("\n")
        for step in steps:
            m = re.fullmatch(r"([-+*/().\d]+)=(-?[\d.]+)", step)
            check(m and abs(eval(m[1]) - float(m[2])) < 0.02 * max(1, abs(float(m[2]))), step)
        check(answer == "#### " + steps[-1].partition("=")[2], (steps, answer))
else:
    print(f"the sets themselves: skipped, no {SETS}")
print(f"{checks} checks, {failed} failed")
sys.exit(failed > 0)
