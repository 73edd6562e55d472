"""examples/Containerfile and examples/kubernetes.yaml without an engine of containers.

The steps of the Containerfile run in a Debian made by debootstrap, the program runs in it as its
user with a read-only root. Needs root, Debian's debootstrap, and Debian's and PyPI's servers.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, masks, report_lines

MANIFEST = ROOT / "examples" / "kubernetes.yaml"
RECIPE = ROOT / "examples" / "Containerfile"


def container():
    return yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]["containers"][0]


def test_kubernetes_knows_all_fields_of_the_manifest():
    validate = pytest.importorskip("kubernetes_validate")
    manifest = yaml.safe_load(MANIFEST.read_text())
    validate.validate(manifest, validate.latest_version(), strict=True)
    manifest["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(manifest, validate.latest_version(), strict=True)


def test_the_manifests_user_is_the_containerfiles():
    [user] = re.findall(r"^USER (\d+):(\d+)$", RECIPE.read_text(), re.MULTILINE)
    context = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]["securityContext"]
    assert user == (str(context["runAsUser"]), str(context["runAsGroup"]))


# Settings with which this machine reaches the servers of packages
HOW_TO_REACH = ("/etc/apt/apt.conf.d", "/etc/pip.conf")


class Image:
    """A root folder in which the steps of a Containerfile have run."""

    def __init__(self, root):
        self.root = root
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
        self.folder, self.user, self.entry = "/", "0:0", []

    def build(self, recipe):
        for line in recipe.read_text().splitlines():
            step, _, rest = line.partition(" ")
            if not line or line.startswith("#"):
                continue
            started = time.monotonic()
            if step == "FROM":
                suite = re.fullmatch(r"debian:(\w+)-slim", rest)[1]
                command = ["debootstrap", "--variant=minbase", suite, self.root, *self.mirror()]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                for name in ("resolv.conf", "hosts"):
                    shutil.copy(f"/etc/{name}", self.root / "etc" / name)
                for path in HOW_TO_REACH:
                    self.take(path)
            elif step == "COPY":
                source, target = rest.split()
                inside = self.root / target.lstrip("/")
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, inside, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, inside)
            elif step == "RUN":
                self.run(["sh", "-c", rest], "", self.pip(), check=True, stdout=subprocess.DEVNULL)
            elif step == "WORKDIR":
                self.folder = rest
                (self.root / rest.lstrip("/")).mkdir(exist_ok=True)
            elif step == "ENV":
                self.environment |= dict(each.split("=", 1) for each in shlex.split(rest))
            elif step == "USER":
                self.user = rest
            elif step == "ENTRYPOINT":
                self.entry = json.loads(rest)
            else:
                assert step == "VOLUME", line
            print(f"{time.monotonic() - started:5.1f} s  {line}")

    @staticmethod
    def mirror():
        """Returns the address of the Debian server that this machine uses."""
        for path in ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"):
            text = Path(path).read_text() if os.path.exists(path) else ""
            if found := re.search(r"^(?:deb|URIs:).*?(https?://\S+)", text, re.MULTILINE):
                return [found[1]]
        return []

    def pip(self):
        """Returns the variables with which pip reaches its server from this machine."""
        if "PIP_CERT" not in os.environ:
            return {}
        shutil.copy(os.environ["PIP_CERT"], self.root / "tmp" / "certificates")
        return {"PIP_CERT": "/tmp/certificates"}

    def take(self, path):
        if os.path.isdir(path):
            shutil.copytree(path, self.root / path.lstrip("/"), dirs_exist_ok=True)
        elif os.path.exists(path):
            target = self.root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)

    def run(self, command, script="", environment=(), **how):
        """Runs a command in the root, after a script of the host with the variable $root."""
        variables = {**self.environment, **dict(environment)}
        inside = [
            *("chroot", f"--userspec={self.user}", str(self.root), "env", "-i"),
            *(f"{name}={value}" for name, value in variables.items()),
            *("sh", "-c", f'cd {self.folder} && exec "$@"', "sh", *command),
        ]
        mounts = 'mount -t proc none "$root/proc"; mount --rbind /dev "$root/dev"\n' + script
        line = ["unshare", "--mount", "sh", "-e", "-c", f'{mounts}\nexec "$@"', "sh", *inside]
        return subprocess.run(line, env={**os.environ, "root": str(self.root)}, **how)


READ_ONLY = """
mkdir -p "$root/data"
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --bind "$data" "$root/data"
mount -t tmpfs -o uid=10001,gid=10001 none "$root/cache"
mount -t tmpfs -o mode=1777 none "$root/tmp"
mount -o remount,bind,ro "$root"
"""


@pytest.mark.stress
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(not shutil.which("debootstrap"), reason="needs Debian's debootstrap")
def test_the_container_runs_as_an_ordinary_user_with_a_read_only_root(tmp_path, request):
    image = Image(tmp_path / "root")
    request.addfinalizer(lambda: shutil.rmtree(image.root))
    image.build(RECIPE)
    size = subprocess.check_output(["du", "-sm", "--one-file-system", image.root], text=True)
    print(f"size: {size.split()[0]} MB")
    assert image.user == "10001:10001"

    data = tmp_path / "data"
    shutil.copytree(ROOT / "demo" / "model", data / "model")
    shutil.copytree(ROOT / "demo" / "images", data / "images")
    for path in (data, *data.rglob("*")):
        os.chown(path, 10001, 10001)
    for part in range(8):
        started = time.monotonic()
        done = image.run(
            [*container()["command"], *container()["args"]],
            f"data={shlex.quote(str(data))}{READ_ONLY}",
            {"JOB_COMPLETION_INDEX": part},
            capture_output=True,
            text=True,
        )
        print(f"part {part}: {time.monotonic() - started:.1f} s, exit code {done.returncode}")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    names = [f"{path.stem}.png" for path in sorted((data / "images").iterdir())]
    assert masks(data / "masks") == names
    for name in masks(data / "masks"):
        assert (data / "masks" / name).stat().st_uid == 10001
    summaries = [report_lines(each)[-1]["summary"] for each in data.glob("report.*.jsonl")]
    assert sum(each["done"] for each in summaries) == 4

    # Nothing outside the volumes can be written to: the program ends with an error.
    done = image.run(
        [*image.entry, "--config", "/data/model/deploy.yaml", "--image_path", "/data/images"],
        f"data={shlex.quote(str(data))}{READ_ONLY}",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--save_dir output can't be written to" in done.stderr
