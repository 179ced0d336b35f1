#!/usr/bin/env python3
"""Word problems with short worked answers: GSM8K's training problems of up to three calculations and half of
SVAMP as conversations to learn from, and SVAMP's halves as problems.

    python3 data/word_problems.py GSM8K_TRAIN.jsonl SVAMP.jsonl OUT_DIR

writes OUT_DIR/sft.jsonl ({"messages": [...]}), train.jsonl and test.jsonl (SVAMP's own lines). An answer is
the calculations alone, a line each, and the number:

    48/2=24
    48+24=72
    #### 72

SVAMP's problems come in families of one story with consecutive IDs, so the halves are IDs up to 500 and
above: no family is in both but one at most."""
import json
import os
import re
import sys

NUMBER = r"-?\d+(?:\.\d+)?"
MOST = 3  # calculations: SVAMP's problems have one or two


def short(x):
    """8.0 -> 8, 0.20 -> 0.2"""
    return f"{float(x):.4f}".rstrip("0").rstrip(".")


def gsm8k_steps(answer):
    """What stands between << and >>, calculation by calculation. None where there are none or more than MOST, and
    where the last one does not give the answer."""
    final = short(answer.split("####")[-1].replace(",", ""))
    steps = [re.sub(r"\d*\.\d+|\d+", lambda x: short(x[0]), s.replace(",", "").replace(" ", ""))
             for s in re.findall(r"<<([^<>]+)>>", answer)]
    whole = 0 < len(steps) <= MOST and steps[-1].endswith(f"={final}")
    return "\n".join(steps + [f"#### {final}"]) if whole else None


def svamp_steps(equation):
    """( 6.0 - ( 2.0 + 3.0 ) ) -> 2+3=5, 6-5=1: innermost parentheses first."""
    steps, text = [], equation
    while m := re.search(rf"\(\s*({NUMBER})\s*([-+*/])\s*({NUMBER})\s*\)", text):
        a, op, b = float(m[1]), m[2], float(m[3])
        c = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b
        steps.append(f"{short(a)}{op}{short(b)}={short(c)}")
        text = text[: m.start()] + repr(c) + text[m.end():]
    return "\n".join(steps + [f"#### {short(text)}"])


def conversation(question, answer):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}, ensure_ascii=False)


def main():
    gsm8k, svamp, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    lines = []
    for line in open(gsm8k, encoding="utf-8"):
        record = json.loads(line)
        answer = gsm8k_steps(record["answer"])
        if answer:
            lines.append(conversation(record["question"], answer))
    halves = {"train.jsonl": [], "test.jsonl": []}
    for line in open(svamp, encoding="utf-8"):
        record = json.loads(line)
        learned = int(record["ID"].split("-")[1]) <= 500
        halves["train.jsonl" if learned else "test.jsonl"].append(line.strip())
        if learned:
            lines.append(conversation(f"{record['Body']} {record['Question']}", svamp_steps(record["Equation"])))
    halves["sft.jsonl"] = lines
    for name, rows in halves.items():
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            f.write("\n".join(rows) + "\n")
        print(f"{out}/{name}: {len(rows)} lines")


if __name__ == "__main__":
    main()
