"""How far every learned number of the tests is from its bound, against its spread over seeds and arithmetic.

    python scripts/margins.py [--seeds 4] [--only PATTERN] [--out margins.jsonl] [PYTEST ARGUMENT …]

Runs the tests that use the fixture `margin` once a variant and prints a line a number: its mean, its spread (standard
deviation over all variants), its bound, and (mean − bound) / spread. Less than 3 is flagged: such a test fails
somewhere for no reason; so is a number that is missing in a variant, as its test failed before. Exits with 1 if one is
flagged.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENOUGH = 3.0
ARITHMETIC: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "bfloat16": (("--precision=bf16-mixed",), {}),
    "ATen AVX2": ((), {"ATEN_CPU_CAPABILITY": "avx2"}),
    "oneDNN AVX2": ((), {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "2 threads": (("--threads=2",), {}),
}
"""Variant → arguments of pytest, environment."""


def variants(seeds: int) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    return {f"seed {seed}": ((f"--shift-seed={seed}",), {}) for seed in range(seeds)} | ARITHMETIC


def run(arguments: Iterable[str], environment: dict[str, str], more: list[str]) -> list[dict[str, Any]]:
    """Run the learning tests in one variant; return what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "margins.jsonl"
        command = [sys.executable, "-m", "pytest", "-m", "learns", f"--margins={record}", *arguments, *more]
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=False).returncode
        found = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    if ended not in (0, 1):  # 1 is a test that failed: its numbers say so, or are missing
        raise SystemExit(f"pytest ended with {ended}: it did not run the tests")
    return found


def summary(measured: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per number, the smallest margin first."""
    groups = defaultdict(list)
    for each in measured:
        groups[each["test"], each["name"]].append(each)
    rows = []
    for (test, name), group in groups.items():
        values, bound = [each["value"] for each in group], group[0]["bound"]
        mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan")
        beyond = bound - mean if group[0]["below"] else mean - bound
        margin = beyond / spread if spread else float("inf") * (1 if beyond > 0 else -1)
        worst = max(values) if group[0]["below"] else min(values)
        row = {"test": test, "name": name, "n": len(values), "mean": mean, "spread": spread, "worst": worst}
        rows.append(row | {"bound": bound, "margin": margin})
    return sorted(rows, key=lambda row: row["margin"])


def missing(measured: Iterable[dict[str, Any]]) -> list[str]:
    """A line a number that some variant measured and another did not: there its test failed before."""
    seen = defaultdict(list)
    measured = list(measured)
    for each in measured:
        seen[each["test"], each["name"]].append(each["variant"])
    every = dict.fromkeys(each["variant"] for each in measured)
    counts = {key: max(map(found.count, every)) for key, found in seen.items()}
    lines = []
    for (test, name), found in seen.items():
        lacks = [variant for variant in every if found.count(variant) < counts[test, name]]
        lines += [f"! {test}: {name}: not measured with {', '.join(lacks)}"] if lacks else []
    return lines


def printed(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'margin':>7} {'mean':>9} {'spread':>9} {'worst':>9} {'bound':>9}  n  test: number"]
    for row in rows:
        numbers = " ".join(f"{row[key]:9.4g}" for key in ("mean", "spread", "worst", "bound"))
        flag = "" if row["margin"] >= ENOUGH else "!"
        where = row["test"].removeprefix("tests/")
        lines.append(f"{flag}{row['margin']:.1f}".rjust(7) + f" {numbers} {row['n']:2d}  {where}: {row['name']}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--only", default="", help="pytest's -k")
    parser.add_argument("--out", type=Path, help="keep what was measured, a line of JSON a number")
    options, more = parser.parse_known_args()
    more += ["-k", options.only] if options.only else []
    measured = []
    for variant, (arguments, environment) in variants(options.seeds).items():
        print(f"── {variant}", flush=True)
        measured += [each | {"variant": variant} for each in run(arguments, environment, more)]
    if options.out:
        options.out.write_text("".join(json.dumps(each) + "\n" for each in measured))
    rows = summary(measured)
    print(printed(rows))
    lacking = missing(measured)
    print(*lacking, sep="\n", end="\n" if lacking else "")
    return int(not rows or rows[0]["margin"] < ENOUGH or bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
