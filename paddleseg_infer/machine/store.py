"""Optimised graphs, kept between runs: for a large network Paddle takes 20 s to make one.

Paddle itself keys such files by nothing and believes whatever it finds. So an entry here is named
by all that it depends on, and its files' digests are compared before each use.
"""

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from paddleseg_infer.errors import ConfigError, reason, shown
from paddleseg_infer.graph import check_model_files
from paddleseg_infer.machine.limits import PaddleBuild
from paddleseg_infer.pictures.files import locked

if TYPE_CHECKING:
    from paddleseg_infer.config import EngineOptions
    from paddleseg_infer.deploy import DeployConfig

log = logging.getLogger("paddleseg_infer")

# Graphs of 135 to 190 kB take Paddle 0.2 to 0.5 s, one of 820 kB 21 s.
MIN_GRAPH_BYTES = 200_000
SLOW_SECONDS = 2.0
UNUSED_SECONDS = 30 * 24 * 3600
ABANDONED_SECONDS = 24 * 3600
FORMAT = 1  # raised when this program sets the engine up in another way
DIGESTS = "sha256.json"
NEW_PREFIX = ".new-"
OPTIMIZED_GRAPH, OPTIMIZED_PARAMS = "_optimized.pdmodel", "_optimized.pdiparams"  # Paddle's


def cache_dir_of(options: "EngineOptions") -> str:
    """The cache's folder, "" where none is wanted: `--cache_dir`, or the user's."""
    if options.cache_dir is not None:
        return options.cache_dir
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: others are to be ignored
        base = os.path.abspath(os.path.join(os.path.expanduser("~"), ".cache"))
    return os.path.join(base, "paddleseg-infer")


def create_predictor(
    core: Any,
    config: Any,
    make_config: Callable[[], Any],
    deploy: "DeployConfig",
    options: "EngineOptions",
    build: PaddleBuild,
) -> Any:
    """Paddle's predictor for `config`, from the optimised graph of an earlier run if kept.

    What is wrong with the cache is told in a line and costs only time. Raises what Paddle raises.
    """
    if options.cache_dir == "" or options.device != "cpu":
        return core.create_predictor(config)
    if deploy.is_pir or build.version < (3, 0, 0):
        if options.cache_dir is not None:
            log.warning("--cache_dir has no effect: optimised graphs need a pdmodel and Paddle 3")
        return core.create_predictor(config)
    if os.path.getsize(deploy.graph) < MIN_GRAPH_BYTES:
        return core.create_predictor(config)
    folder = cache_dir_of(options)
    try:
        _prepare(folder)
        _sweep(folder)
        entry = os.path.join(folder, _graph_key(deploy, options, build))
        if _is_whole(entry):
            os.utime(entry)
            if os.listdir(entry) == [DIGESTS]:  # Paddle was fast without
                return core.create_predictor(config)
            config.set_optim_cache_dir(entry)
            config.use_optimized_model(True)
            try:
                return core.create_predictor(config)
            except Exception:  # Paddle's are of many kinds
                log.warning("the cache entry %s can't be loaded: it is made again", shown(entry))
                remove(entry)
                config = make_config()
        return _create_and_keep(core, config, deploy, folder, entry)
    except (OSError, Unusable) as error:
        tell_unusable(folder, error)
    return core.create_predictor(config)


def tell_unusable(folder: str, error: Exception) -> None:
    """A line. `error` is an OSError or Unusable."""
    why = reason(error) if isinstance(error, OSError) else str(error)
    log.warning("the cache %s is not used: %s (--cache_dir names another)", shown(folder), why)


class Unusable(Exception):
    """The cache can't be had, for a reason that is a sentence."""


def _prepare(folder: str) -> None:
    """Makes the cache folder. Graphs are code: raises Unusable where another user may enter."""
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(os.path.abspath(folder)), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    status = os.stat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise Unusable("it is no folder")
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            raise Unusable("it belongs to another user")
        if status.st_mode & 0o077:
            raise Unusable("others may enter it; chmod 700 makes it private")


def _graph_key(deploy: "DeployConfig", options: "EngineOptions", build: PaddleBuild) -> str:
    return key_of(deploy, build, options.enable_mkldnn, _processor())


def key_of(deploy: "DeployConfig", build: PaddleBuild, *engine: Any) -> str:
    """A name for all that what is kept depends on: the model, Paddle, and `engine`'s settings."""
    digest = hashlib.sha256()
    for path in (deploy.graph, deploy.params):
        digest.update(bytes.fromhex(sha256(path)))
    digest.update(json.dumps([FORMAT, str(build), build.commit, *engine]).encode())
    return digest.hexdigest()


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _processor() -> str:
    """Kind and features of the processor, by which Paddle chooses the layout of weights."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", file.read(), re.M)
        return "\n".join(sorted(set(lines)))
    return platform.processor()


def _is_whole(entry: str) -> bool:
    """Whether the entry is there and holds what was written. A bad one is told and taken away."""
    if not os.path.isdir(entry):
        return False
    try:
        with open(os.path.join(entry, DIGESTS), encoding="utf-8") as file:
            digests = json.load(file)
        is_same = all(sha256(os.path.join(entry, n)) == d for n, d in digests.items())
        if is_same and {DIGESTS, *digests} == set(os.listdir(entry)):
            return True
    except (OSError, ValueError, AttributeError):
        pass  # told as what it is: damaged
    log.warning("the cache entry %s is damaged: it is made again", shown(entry))
    remove(entry)
    return False


def _create_and_keep(
    core: Any, config: Any, deploy: "DeployConfig", folder: str, entry: str
) -> Any:
    """Creates the predictor, and keeps the graph that it made if that took long."""
    need_space(folder, deploy)
    with _new_folder(folder) as new:
        config.set_optim_cache_dir(new)
        config.enable_save_optim_model(True)
        started = time.monotonic()
        predictor = core.create_predictor(config)
        files = [os.path.join(new, name) for name in (OPTIMIZED_GRAPH, OPTIMIZED_PARAMS)]
        try:
            if time.monotonic() - started < SLOW_SECONDS:  # the entry says so, and holds nothing
                for path in files:
                    os.unlink(path)
            else:
                check_model_files(*files)  # Paddle doesn't notice that a full disk cuts them off
            _keep(new, entry)
        except (OSError, ConfigError, Unusable) as error:
            log.warning("the optimised graph can't be kept in %s: %s", shown(folder), error)
        return predictor


def need_space(folder: str, deploy: "DeployConfig") -> None:
    """Raises Unusable where what is made of a model may not fit."""
    needed = 3 * (os.path.getsize(deploy.graph) + os.path.getsize(deploy.params))
    if shutil.disk_usage(folder).free < needed:
        raise Unusable("there is too little space left")


def keep(folder: str, name: str, fill: Callable[[str], None]) -> str:
    """The entry `name` (64 hexadecimal digits), which `fill` makes in a folder if it isn't there.

    Of several processes one does, the others wait. Raises OSError and Unusable.
    """
    _prepare(folder)
    _sweep(folder)
    entry = os.path.join(folder, name)
    if not _is_whole(entry):
        with locked(folder), _new_folder(folder) as new:
            if not _is_whole(entry):
                fill(new)
                _keep(new, entry)
    os.utime(entry)
    return entry


@contextlib.contextmanager
def _new_folder(folder: str) -> Iterator[str]:
    """For an entry to be; what is there at the end and was not kept is removed."""
    new = os.path.join(folder, NEW_PREFIX + secrets.token_hex(8))
    os.mkdir(new, 0o700)
    try:
        yield new
    finally:
        remove(new)


def _keep(new: str, entry: str) -> None:
    """Gives the new files their entry's name; where another process was faster its entry stays."""
    digests = {name: sha256(os.path.join(new, name)) for name in os.listdir(new)}
    with open(os.path.join(new, DIGESTS), "w", encoding="utf-8") as file:
        json.dump(digests, file)
    try:
        os.rename(new, entry)
    except OSError as error:
        if not os.path.isdir(entry):
            raise Unusable(f"the entry can't be kept: {reason(error)}") from None


def _sweep(folder: str) -> None:
    """Removes entries that nobody used for long, and what killed runs left."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for item in found:
            is_new = item.name.startswith(NEW_PREFIX)
            if not (is_new or re.fullmatch(r"[0-9a-f]{64}", item.name)):
                continue  # not made here
            with contextlib.suppress(OSError):
                age = time.time() - item.stat(follow_symlinks=False).st_mtime
                if age > (ABANDONED_SECONDS if is_new else UNUSED_SECONDS):
                    remove(item.path)


def remove(path: str) -> None:
    """At once for other processes, which may be about to read it."""
    going = os.path.join(os.path.dirname(path), NEW_PREFIX + secrets.token_hex(8))
    with contextlib.suppress(OSError):
        os.rename(path, going)
        shutil.rmtree(going, ignore_errors=True)
