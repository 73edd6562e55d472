#!/usr/bin/env python3
"""Adds up the reports of a run in parts: python examples/add_up_reports.py part0.jsonl part1.jsonl

Prints the numbers of images, and the metrics if the parts were run with --label_path. The last
summary of each report counts. Exit code 1: a part is missing or isn't complete.
"""

import argparse
import json
import os
import sys
from collections import Counter, deque

# The package may be in this script's project, without being installed.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir))

from paddleseg_infer.outcomes import Areas
from paddleseg_infer.runs.evaluation import Evaluation


def last_summary(path: str) -> dict:
    """Returns the summary in a report's last line. Raises ValueError if there is none."""
    with open(path, encoding="ascii") as lines:
        last = "".join(deque(lines, 1))
    if not last.endswith("\n") or "summary" not in json.loads(last):
        raise ValueError("it has no summary at its end: run this part again with --resume")
    return json.loads(last)["summary"]


def areas_in(evaluation: dict) -> Areas:
    fields = ("intersection", "prediction", "label")
    by_class = (tuple(each[field] for each in evaluation["classes"]) for field in fields)
    return Areas(*by_class, evaluation["pixels"])


def wrong_parts(shards: Counter[str]) -> list[str]:
    """Returns what is wrong with the parts: some are missing, or are there twice."""
    counts = {int(shard.partition("/")[2]) for shard in shards}
    if len(counts) > 1:
        return ["the reports belong to runs with different numbers of parts"]
    wrong = [
        f"there are {times} reports of part {shard}" for shard, times in shards.items() if times > 1
    ]
    missing = [f"{part}/{count}" for count in counts for part in range(count)]
    return wrong + [f"no report of part {part}" for part in missing if part not in shards]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reports", nargs="+", metavar="REPORT", help="the reports of all parts")
    counts: Counter[str] = Counter()
    shards: Counter[str] = Counter()
    total: Evaluation | None = None
    compared: dict[bool, list[str]] = {True: [], False: []}  # with and without --label_path
    all_names: list[str] = []
    wrong = []
    for path in sorted(set(map(os.path.normpath, parser.parse_args().reports))):
        try:
            summary = last_summary(path)
            if summary["exit_code"]:
                code = summary["exit_code"]
                wrong.append(f"{path}: the run of this part ended with exit code {code}")
            counts.update(
                {name: summary[name] for name in ("done", "failed", "skipped", "not_tried")}
            )
            shards.update([summary["shard"]] if summary["shard"] else [])
            evaluation = summary.get("evaluation")
            compared[evaluation is not None].append(path)
            if evaluation and "classes" in evaluation:
                names = [each["name"] for each in evaluation["classes"]]
                if names != (all_names := all_names or names):
                    raise ValueError("it is of a model with other classes")
                total = total or Evaluation(names)
                total.add(areas_in(evaluation), evaluation["images"])
        except OSError as error:
            wrong.append(f"{path} can't be read: {error.strerror}")
        except ValueError as error:
            wrong.append(f"{path}: {error}")
        except (KeyError, TypeError):
            wrong.append(f"{path} is not a report of this program")
    for name, count in counts.items():
        print(f"{name:12}{count:10}")
    if compared[True]:
        wrong += [f"{path}: this part was run without --label_path" for path in compared[False]]
        for line in (total or Evaluation()).table(counts.total()):
            print(line)
    for line in wrong + wrong_parts(shards):
        print(line, file=sys.stderr)
    return 1 if wrong or wrong_parts(shards) else 0


if __name__ == "__main__":
    sys.exit(main())
