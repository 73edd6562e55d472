"""Makes a page to look at a run's pictures: `python -m paddleseg_infer.gallery report.jsonl`."""
