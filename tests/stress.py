#!/usr/bin/env python3
"""Tests that take too long for `make test`: kills, restarts, bad files. `make stress` runs them.

Each part prints its results. The program ends at the first wrong result.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from demo.scenes import draw_scene
from paddleseg_infer.pictures.files import whole_png

ROOT = Path(__file__).resolve().parent.parent

MODEL = ROOT / "demo" / "model" / "deploy.yaml"


def start(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, ROOT / "infer.py", "--config", MODEL, "--device", "cpu"]
    return subprocess.Popen(
        [str(word) for word in (*command, *arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(process: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(number) for number in found.stdout.split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png")) if folder.exists() else []


def draw(folder: Path, count: int) -> Path:
    """Draws small scenes, which are all different. Returns their folder."""
    folder.mkdir()
    scenes = [draw_scene(1, number, 192, 128)[0] for number in range(50)]
    for number in range(count):
        image = np.roll(scenes[number % 50], 3 * number, axis=1)
        cv2.imwrite(str(folder / f"{number:05}.jpg"), image)
    return folder


def same(one: Path, other: Path) -> bool:
    names = [path.relative_to(one) for path in pictures(one)]
    return names == [path.relative_to(other) for path in pictures(other)] and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def expect(holds: bool, what: str) -> None:
    print(f"  {'yes' if holds else 'NO '}  {what}", flush=True)
    if not holds:
        sys.exit(1)


def killed_workers(images: Path, whole: Path, folder: Path) -> None:
    print("a worker killed every 40 masks, two workers, 1,000 images", flush=True)
    out, report = folder / "killed", folder / "killed.jsonl"
    process = start(
        *("--image_path", images, "--save_dir", out, "--num_workers", 2, "--report", report)
    )
    kills, last = 0, 0
    while process.poll() is None:
        count = len(pictures(out))
        if count >= last + 40 and (pids := children(process)):
            os.kill(random.choice(pids), signal.SIGKILL)
            kills, last = kills + 1, count
        time.sleep(0.02)
    process.communicate()
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    reported = {line["image"] for line in lines if line.get("status") == "done"}
    expect(kills >= 15, f"{kills} kills")
    expect(process.returncode == 0, f"exit code {process.returncode}")
    expect(same(whole, out), "1,000 masks, equal to an undisturbed run's")
    expect(len(reported) == 1000, f"{len(reported)} in the report")


def killed_runs(images: Path, whole: Path, folder: Path) -> None:
    print("the whole tree killed at 20 random moments, --resume after each", flush=True)
    out, kills = folder / "restarted", 0
    arguments = ("--image_path", images, "--save_dir", out, "--num_workers", 2, "--resume")
    kept: dict[Path, tuple[int, int]] = {}
    broken = changed = orphans = 0
    while kills < 20:
        process = start(*arguments)
        pids = []
        deadline = time.monotonic() + random.uniform(0.2, 1.5)
        while time.monotonic() < deadline and process.poll() is None:
            pids = children(process) or pids
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
        time.sleep(0.2)
        orphans += sum(is_running(pid) for pid in pids)
        now = {}
        for path in pictures(out):
            broken += whole_png(str(path)) is None
            status = path.stat()
            now[path] = (status.st_ino, status.st_mtime_ns)
        changed += sum(now.get(path) != state for path, state in kept.items())
        kept = now
    process = start(*arguments)
    process.communicate()
    expect(process.returncode == 0, f"{kills} kills, then exit code {process.returncode}")
    expect(broken == 0, f"{broken} broken")
    expect(changed == 0, f"{changed} whole masks changed")
    expect(orphans == 0, f"{orphans} orphans")
    expect(same(whole, out), "1,000 masks, equal to an undisturbed run's")


def bad_files(folder: Path) -> None:
    print("10,000 files, 500 of them bad in 15 ways", flush=True)
    images = folder / "many"
    images.mkdir()
    good = cv2.imencode(".jpg", draw_scene(1, 1, 96, 64)[0])[1].tobytes()
    png = cv2.imencode(".png", draw_scene(1, 1, 96, 64)[0])[1].tobytes()
    ways = [
        *(b"", b"\0" * 500, b"no image", b"<html></html>", good[:100], good[: len(good) // 2]),
        *(png[:60], png[: len(png) // 2], png[:-20], b"BM" + b"\0" * 60, b"II*\0" + b"\0" * 30),
        *(b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff", png[:16] + b"\xff" * 8 + png[24:]),
    ]
    for number in range(10_000):
        path = images / f"{number:05}.png"
        if number % 20:
            path.write_bytes(good)
        elif (way := number // 20 % 15) < len(ways):
            path.write_bytes(ways[way])
        else:
            path.symlink_to("nowhere")
    process = start(*("--image_path", images, "--save_dir", folder / "masks", "--num_workers", 2))
    levels = []
    while process.poll() is None:
        resident = 0
        for pid in children(process):
            try:
                pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
            except (OSError, IndexError):
                continue
            resident += int(pages) * 4096
        levels.append(resident / 1e6)
        time.sleep(0.5)
        if len(levels) > 4 and process.stdout and process.poll() is None:
            continue
    out, err = process.communicate()
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    third = len(levels) // 3
    expect(process.returncode == 1, f"exit code {process.returncode}: {out.strip()}")
    expect(len(pictures(folder / "masks")) == 9500, "9,500 masks")
    expect(len(failed) == 500, f"{len(failed)} reasons")
    middle, end = max(levels[third : 2 * third]), max(levels[2 * third :])
    expect(end < 1.1 * middle, f"memory level: {middle:.0f} MB, then {end:.0f}")


def signals(images: Path, folder: Path) -> None:
    print("SIGINT and SIGTERM, ten times each", flush=True)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        longest = 0.0
        for _ in range(10):
            shutil.rmtree(folder / "signalled", ignore_errors=True)
            process = start(
                *("--image_path", images, "--save_dir", folder / "signalled", "--num_workers", 2)
            )
            time.sleep(random.uniform(0.3, 2.5))
            begun = time.monotonic()
            process.send_signal(number)
            process.communicate()
            longest = max(longest, time.monotonic() - begun)
            if process.returncode != code:
                expect(False, f"exit code {process.returncode}")
        expect(longest < 5, f"{code}, ten times, within {longest:.1f} s")


def shards(images: Path, whole: Path, folder: Path) -> None:
    print("--shard in 8 parts, files added in between", flush=True)
    copy, out = folder / "growing", folder / "parts"
    shutil.copytree(images, copy)
    added = [f"new{number}.jpg" for number in range(40)]
    counts = []
    for part in range(8):
        if part == 4:
            for name in added:
                shutil.copy(images / "00000.jpg", copy / name)
        process = start("--image_path", copy, "--save_dir", out, "--shard", f"{part}/8")
        counts.append(int(process.communicate()[0].split()[0]))
    new = [path for path in pictures(out) if path.stem.startswith("new")]
    expect(sum(counts) == 1000 + len(new), f"disjoint: {counts}, {len(new)} of them new")
    for path in new:
        path.unlink()
    expect(same(whole, out), "complete and equal")


def nodes(images: Path, whole: Path, folder: Path) -> None:
    print("--ray on two nodes, one killed in the middle", flush=True)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    out, report = folder / "nodes", folder / "nodes.jsonl"
    process = start(
        *("--image_path", images, "--save_dir", out, "--report", report),
        *("--ray", cluster.address, "--num_workers", 2),
    )
    while len(pictures(out)) < 400 and process.poll() is None:
        time.sleep(0.05)
    cluster.remove_node(second, allow_graceful=False)
    process.communicate()
    cluster.shutdown()
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    done = {line["image"] for line in lines if line.get("status") == "done"}
    expect(process.returncode == 0 and len(done) == 1000, "exit code 0, 1,000 lines of the report")
    expect(same(whole, out), "1,000 masks, equal")


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else int(time.time())
    random.seed(seed)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = draw(folder / "images", 1000)
        whole = folder / "whole"
        process = start("--image_path", images, "--save_dir", whole)
        process.communicate()
        expect(len(pictures(whole)) == 1000, "1,000 masks of an undisturbed run")
        killed_workers(images, whole, folder)
        killed_runs(images, whole, folder)
        signals(images, folder)
        shards(images, whole, folder)
        nodes(images, whole, folder)
        bad_files(folder)


if __name__ == "__main__":
    main()
