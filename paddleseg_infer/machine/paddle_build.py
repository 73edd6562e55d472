"""Finds the installed Paddle without importing it."""

import glob
import importlib.util
import os
import re
from dataclasses import dataclass

from paddleseg_infer.errors import ConfigError, shown


@dataclass(frozen=True)
class PaddleBuild:
    """Version and build of the installed Paddle."""

    version: tuple[int, int, int]
    has_gpu: bool
    folder: str
    commit: str = ""
    cuda: str = "False"  # the version it was built with; "False" if none
    cudnn: str = "False"

    @property
    def openvino_library(self) -> str | None:
        """The path of the OpenVINO library in this Paddle, if it has one."""
        found = glob.glob(os.path.join(glob.escape(self.folder), "libs", "libopenvino.so*"))
        return found[0] if found else None

    def __str__(self) -> str:
        return ".".join(map(str, self.version)) + (" (GPU build)" if self.has_gpu else "")


def find_paddle() -> PaddleBuild:
    """Reads `paddle/version`. Raises ConfigError if Paddle is missing or older than 2.6.0."""
    spec = importlib.util.find_spec("paddle")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("Paddle is not installed: run pip install -r requirements.txt")
    folder = spec.submodule_search_locations[0]
    try:
        with open(os.path.join(folder, "version", "__init__.py"), encoding="utf-8") as file:
            stated = dict(re.findall(r"^(\w+) *= *'(.*)'", file.read(), re.MULTILINE))
        numbers = [int(part) for part in re.findall(r"\d+", stated["full_version"])[:3]]
        major, minor, patch = [*numbers, 0, 0][:3]
    except (OSError, KeyError, ValueError):
        raise ConfigError(
            f"the Paddle in {shown(folder)} has no readable version: install it again"
        ) from None
    version = (major, minor, patch)
    if (0, 0, 0) < version < (2, 6, 0):  # 0.0.0 is a build of the development branch
        raise ConfigError(
            f"Paddle {stated['full_version']} is too old: this program needs 2.6 or newer"
        )
    cuda, cudnn = (stated.get(f"{kind}_version", "False") for kind in ("cuda", "cudnn"))
    commit = stated.get("commit", "")
    return PaddleBuild(version, cuda != "False", folder, commit, cuda, cudnn)
