#!/usr/bin/env python3
"""Adds up the reports of a run in parts: python add_up_reports.py masks.0.jsonl masks.1.jsonl ...

Prints the numbers of images, and the metrics if the parts were run with --label_path. The last
summary of each report counts. Exit code 1: a part isn't complete.
"""

import json
import sys
from collections import Counter

from paddleseg_infer.outcomes import Areas
from paddleseg_infer.runs.evaluation import Evaluation


def last_summary(path: str) -> dict | None:
    """Returns the summary in a report's last line, or None if the run was killed before it."""
    with open(path, encoding="ascii") as lines:
        last = {}
        for line in lines:
            last = json.loads(line) if line.endswith("\n") else {}
    return last.get("summary")


def areas_in(evaluation: dict) -> Areas:
    fields = ("intersection", "prediction", "label")
    return Areas(*(tuple(each[field] for each in evaluation["classes"]) for field in fields))


def main() -> int:
    summaries = {path: last_summary(path) for path in sys.argv[1:]}
    counts: Counter[str] = Counter()
    total = None
    is_complete = bool(summaries)
    for path, summary in summaries.items():
        if not summary or summary["exit_code"]:
            code = f"exit code {summary['exit_code']}" if summary else "no summary at its end"
            print(f"{path}: {code}: run this part again with --resume", file=sys.stderr)
            is_complete = False
        if not summary:
            continue
        counts.update({name: summary[name] for name in ("done", "failed", "skipped", "not_tried")})
        if evaluation := summary.get("evaluation"):
            names = [each["name"] for each in evaluation.get("classes", ())]
            total = total or Evaluation(names)
            if evaluation["images"]:
                total.add(areas_in(evaluation), evaluation["images"])
    for name, count in counts.items():
        print(f"{name:12}{count:10}")
    for line in total.table() if total else ():
        print(line)
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
