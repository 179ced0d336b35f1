#!/usr/bin/env python3
"""The figures of doc/experiment.md from its tables, computed a second time: frontiers, Student's t,
Holm's correction and the temperatures, against what data/experiment.sh prints; and each interval of
the page's short answers against those that its blocks print. Needs ./g2rl, writes runs/tables."""

import csv
import math
import os
import re
import subprocess
import sys
from collections import defaultdict

os.chdir(os.path.join(os.path.dirname(__file__), ".."))
GROUNDS = {"countdown": ("1e-4", "pass@16"), "maze": ("5e-5", "distinct_right@16"),
           "reach": ("2e-4", "distinct_right@16")}
checks = failed = 0


def check(ok, what):
    global checks, failed
    checks += 1
    if not ok:
        failed += 1
        print("failed:", what)


def printed(*stage):
    return subprocess.run(["sh", "data/experiment.sh", *stage], check=True, text=True,
                          capture_output=True).stdout.splitlines()


def close(text, value):
    """Is TEXT what VALUE rounds to?"""
    digits = len(text.partition(".")[2].partition("e")[0])
    power = int(text.partition("e")[2] or 0)
    return abs(float(text) - value) <= 0.51 * 10.0 ** (power - digits)


def tail(t, df):
    """P(T > t) of Student's t: Simpson's rule over u = t / s, s from 0 to 1."""
    density = math.gamma((df + 1) / 2) / math.gamma(df / 2) / math.sqrt(df * math.pi)
    value = lambda s: density * t * s ** (df - 1) * (s * s + t * t / df) ** (-(df + 1) / 2)
    n = 2000
    return sum((4 if i % 2 else 2 if 0 < i < n else 1) * value(i / n) for i in range(n + 1)) / n / 3


def t_test(xs):
    """Mean, half the width of the 95 % interval, p."""
    n, mean = len(xs), sum(xs) / len(xs)
    se = math.sqrt(sum((x - mean) ** 2 for x in xs) / (n - 1) / n)
    low, high = 0.0, 1000.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, n - 1) > 0.025 else (low, middle)
    return mean, low * se, 2 * tail(abs(mean) / se, n - 1)


def first(path, v):
    """A path's measure where it first reaches a pass@1."""
    for (x0, y0), (x1, y1) in zip(path, path[1:]):
        if x0 >= v - 1e-12:
            return y0
        if x1 >= v:
            return y0 + (v - x0) / (x1 - x0) * (y1 - y0)
    return path[-1][1]


def frontier(a, b):
    start, end = a[0][0], min(max(x for x, _ in a), max(x for x, _ in b))
    if end - start < 0.03:
        return None
    return sum(first(a, v) - first(b, v) for v in
               (start + j / 19 * (end - start) for j in range(20))) / 20


def paths(ground):
    """Of each split, rate, seed and row: points of pass@1 and the ground's measure."""
    out = defaultdict(list)
    with open(f"doc/experiment/{ground}.csv") as f:
        for line in csv.DictReader(f):
            key = line["split"], line["lr"], int(line["seed"]), line["row"]
            out[key].append((float(line["pass@1"]), float(line[GROUNDS[ground][1]])))
    return out


def primary():
    rows = {}
    for ground, (rate, _) in GROUNDS.items():
        runs = paths(ground)
        for other in "grpo", "g2rl-random", "g2rl-count":
            found = [frontier(runs["test", rate, s, "g2rl"], runs["test", rate, s, other])
                     for s in range(11, 21)]
            rows[ground, other] = t_test([d for d in found if d is not None])
    order = sorted(rows, key=lambda k: rows[k][2])
    worst = 0.0
    lines = printed("tests")[1:]
    check(len(lines) == 9, "nine primary tests")
    for rank, (key, line) in enumerate(zip(order, lines)):
        mean, half, p = rows[key]
        worst = max(worst, min(1, p * (9 - rank)))
        scale = 100 if key[0] == "countdown" else 1
        f = re.findall(r"[^\s\[\],]+", line)
        says = f[2], f[6], f[7], f[-2], f[-1]
        values = scale * mean, scale * (mean - half), scale * (mean + half), p, worst
        check((f[0], f[1]) == key, f"order of {line}")
        check(all(map(close, says, values)), f"{line}: {values}")


def sharpened():
    at = defaultdict(list)
    with open("doc/experiment/temperatures.csv") as f:
        for line in csv.DictReader(f):
            variety = 100 * float(line["pass@16"]) if "countdown" in line["ground"] else \
                float(line["distinct_right@16"])
            at[line["ground"], int(line["seed"]), line["row"]].append(
                (float(line["temperature"]), float(line["pass@1"]), variety))
    differences = defaultdict(list)
    for (ground, seed, row), own in at.items():
        if row == "grpo" or (ground, seed, "grpo") not in at:
            continue
        _, goal, has = next(p for p in own if p[0] == 1)
        differences[ground, row] += []
        grpo = at[ground, seed, "grpo"]
        for (t0, p0, v0), (t1, p1, v1) in zip(grpo, grpo[1:]):
            if min(p0, p1) <= goal <= max(p0, p1):
                share = (goal - p0) / (p1 - p0)
                differences[ground, row].append(has - v0 - share * (v1 - v0))
                break
    lines = printed("sharpened")[1:]
    check(len(lines) == len(differences), "a line for each row that was warmed")
    for line in lines:
        f = re.findall(r"[^\s\[\],]+", line)
        d = differences[f[0], f[1]]
        check(int(f[2]) == len(d), f"seeds of {line}: {len(d)}")
        if len(d) > 1:
            mean, half, _ = t_test(d)
            values = mean, mean - half, mean + half
            check(all(map(close, f[5:8], values)), f"{line}: {values}")


def pool():
    at = defaultdict(dict)
    with open("doc/experiment/pool-countdown.csv") as f:
        for line in csv.DictReader(f):
            row = line["row"] if line["step"] != "0" else "base"
            at[row, int(line["step"])][int(line["seed"])] = [
                100 * float(line[f"pass@{k}"]) for k in (1, 16, 64)]
    lines = printed("pool")
    split = next(i for i, line in enumerate(lines) if line.startswith("g2rl minus"))
    check(split == 10 and len(lines) == 14, "base, four rows at two steps, three differences")
    for line in lines[1:split]:
        f = line.split()
        runs = list(at[f[0], int(f[1])].values())
        check(int(f[2]) == len(runs) == 3, f"seeds of {line}")
        check(all(close(x, sum(v) / 3) for x, v in zip(f[3:], zip(*runs))), line)
    for line in lines[split + 1:]:
        f = re.findall(r"[^\s\[\],]+", line)
        mine, other = at["g2rl", 1000], at[f[0], 1000]
        for i in range(3):
            mean, half, _ = t_test([mine[s][i] - other[s][i] for s in (11, 12, 13)])
            values = mean, mean - half, mean + half
            check(all(map(close, f[1 + 3 * i:4 + 3 * i], values)), f"{line}: {values}")


def short_answers():
    """Each "D [LOW, HIGH]" is a rounded one of a block."""
    page = open("doc/experiment.md").read()
    number = r"([-+][\d.]+)"
    bounds = r"\[" + number + ", " + number + r"\]"
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", page, re.S))
    rows = re.findall(number + r"\s+(?:\w+ of \S+\s+)?" + bounds, blocks)
    known = [tuple(map(float, m)) for m in rows]
    answers = page.partition("## Short answers")[2].partition("\n# ")[0]
    found = re.findall(number + r"[^\[\]|\n]{0,40}?" + bounds, answers)
    check(len(found) >= 20, f"{len(found)} intervals in the short answers")
    for m in found:
        check(any(all(map(close, m, k)) for k in known), f"short answers: {m} is of no block")


subprocess.run(["sh", "data/experiment.sh", "unfold"], check=True)
primary()
sharpened()
pool()
short_answers()
print(f"{checks} checks, {failed} failed")
sys.exit(failed > 0)
