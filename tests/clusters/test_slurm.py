"""examples/slurm.sh in a private Slurm, which this file starts and stops.

Needs root, and slurmctld, slurmd, munged and their tools (Debian: slurm-wlm). `pytest -s` prints
what is typed and what Slurm answers.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, masks, report_lines, wait_until, write_image

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=64
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

missing = [name for name in NEEDED if not shutil.which(name)]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(bool(missing), reason=f"needs Debian's slurm-wlm: no {', '.join(missing)}"),
    pytest.mark.xdist_group("slurm"),
]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A function that runs a command of Slurm, and returns what it prints."""
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # munge refuses folders that others may write to
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    conf = CONF.format(host=host, folder=folder, ports=free_ports(2))
    (folder / "slurm.conf").write_text(conf)
    (folder / "spool").mkdir()
    environment = {
        **os.environ,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MODEL": str(ROOT / "demo" / "model"),
        "SBATCH_OUTPUT": "/dev/null",
    }
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", "--num-threads=2"]
    munged += [f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid"]
    munged += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed"]
    daemons = [
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        for command in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"])
    ]

    def run(*command, quiet=False, **more):
        if not quiet:
            print("$", *command)
        done = subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env={**environment, **{name: str(value) for name, value in more.items()}},
            capture_output=True,
            text=True,
        )
        if not quiet:
            print(done.stdout + done.stderr, end="")
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        wait_until(lambda: ended(daemons) or "idle" in state_of_nodes(environment), 30)
        if ended(daemons):
            pytest.skip(f"Slurm can't start here: see {folder}/*.log")
        yield run
    finally:
        subprocess.run(["scancel", "-u", "root"], env=environment, stderr=subprocess.DEVNULL)
        time.sleep(1)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(30)
            daemon.kill()
            daemon.wait()


def ended(daemons):
    return [each for each in daemons if each.poll() is not None]


def state_of_nodes(environment):
    command = ["sinfo", "--noheader", "--format=%T"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def job(slurm, number):
    """Returns the state, the exit code and the number of restarts of a job."""
    shown = slurm("scontrol", "show", "job", number, quiet=True)
    fields = dict(re.findall(r"(JobState|ExitCode|Restarts)=(\S*)", shown))
    print(f"job {number}: " + ", ".join(map("=".join, fields.items())))
    return fields


def state(slurm, number):
    return re.search(r"JobState=(\S*)", slurm("scontrol", "show", "job", number, quiet=True))[1]


def has_ended(slurm, number):
    return state(slurm, number) not in ("PENDING", "RUNNING", "COMPLETING")


def have_all_ended(slurm):
    return not slurm("squeue", "--noheader", quiet=True)


def add_up(folder, *reports):
    script = ROOT / "examples" / "add_up_reports.py"
    command = [sys.executable, script, *reports]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    print(f"$ python examples/add_up_reports.py ...\n{done.stdout}{done.stderr}", end="")
    return done


@pytest.fixture
def images(tmp_path):
    """A folder of 20,000 images: one worker needs more than a minute for an eighth of them."""
    folder = tmp_path / "images"
    for number in range(20):
        write_image(folder / f"{number}.png", (256, 320), number)
    for number in range(20, 20_000):
        os.link(folder / f"{number % 20}.png", folder / f"{number}.png")
    return folder


def test_an_array_of_eight_parts(slurm, tmp_path):
    for number in range(60):
        write_image(tmp_path / "images" / f"{number}.png", (96, 128), number)
    where = {"IMAGES": tmp_path / "images", "MASKS": tmp_path / "masks"}
    array = slurm("sbatch", "--parsable", "--cpus-per-task=1", "examples/slurm.sh", **where).strip()
    wait_until(lambda: have_all_ended(slurm), 120)
    for part in range(8):
        assert job(slurm, f"{array}_{part}")["ExitCode"] == "0:0"
    assert len(masks(tmp_path / "masks")) == 60
    reports = sorted(tmp_path.glob("masks.*.jsonl"))
    done = add_up(tmp_path, *reports)
    assert done.returncode == 0, done.stderr
    assert re.search(r"done +60\n", done.stdout)


@pytest.mark.stress
def test_a_part_that_is_cancelled_requeued_or_out_of_time(slurm, images, tmp_path):
    where = {"IMAGES": images, "MASKS": tmp_path / "masks"}
    submit = ("sbatch", "--parsable", "--cpus-per-task=1", "--array=0,1,2", "examples/slurm.sh")
    array = slurm(*submit, **where).strip()
    reports = [tmp_path / f"masks.{part}.jsonl" for part in range(3)]
    wait_until(lambda: all(each.exists() and each.stat().st_size for each in reports), 120)

    # Cancelled: the program ends within five seconds, and all masks are whole.
    slurm("scancel", f"{array}_1")
    started = time.monotonic()
    wait_until(lambda: has_ended(slurm, f"{array}_1"), 60)
    seconds = time.monotonic() - started
    assert seconds < 5
    print(f"cancelled within {seconds:.1f} s")
    assert job(slurm, f"{array}_1")["ExitCode"] == "143:0"
    summary = report_lines(reports[1])[-1]["summary"]
    assert summary["exit_code"] == 143
    assert summary["not_tried"] > 0

    # Requeued: it continues where it stopped.
    slurm("scontrol", "requeue", f"{array}_2")
    wait_until(lambda: state(slurm, f"{array}_2") == "PENDING", 60)
    made = len(report_lines(reports[2])) - 1
    slurm("scontrol", "update", f"JobId={array}_2", "StartTime=now")  # else it waits two minutes

    # Out of time, as if its limit were over.
    slurm("scontrol", "update", f"JobId={array}_0", "TimeLimit=1")
    wait_until(lambda: has_ended(slurm, f"{array}_0"), 180)
    ended = job(slurm, f"{array}_0")
    assert (ended["JobState"], ended["ExitCode"]) == ("TIMEOUT", "143:0")
    wait_until(lambda: has_ended(slurm, f"{array}_2"), 180)
    assert job(slurm, f"{array}_2")["Restarts"] == "1"
    assert job(slurm, f"{array}_2")["ExitCode"] == "0:0"
    last = report_lines(reports[2])[-1]["summary"]
    assert last["skipped"] == made
    assert last["failed"] == last["not_tried"] == 0
    assert "ended with exit code 143" in add_up(tmp_path, *reports).stderr

    # The cancelled part and the one that was out of time again: what is missing is made.
    again = slurm(*submit[:-2], "--array=0,1", submit[-1], **where).strip()
    wait_until(lambda: have_all_ended(slurm), 300)
    for part in (0, 1):
        assert job(slurm, f"{again}_{part}")["ExitCode"] == "0:0"
    done = add_up(tmp_path, *reports)
    assert done.stderr.splitlines() == [f"no report of part {part}/8" for part in range(3, 8)]
    summaries = [report_lines(each)[-1]["summary"] for each in reports]
    found = [name for name in masks(tmp_path / "masks") if not name.endswith(".part")]
    assert len(found) == sum(each["done"] + each["skipped"] for each in summaries)
    for name in found[::50]:
        assert (tmp_path / "masks" / name).read_bytes().endswith(b"IEND\xaeB`\x82")
