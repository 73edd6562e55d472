"""--benchmark: reports the time of each stage, with AutoLog or with lines of the same form.

PaddleSeg's script uses AutoLog (github.com/LDOUBLEV/AutoLog) for its report. This module passes
its own times per image to AutoLog, because AutoLog would measure whole batches.
"""

import logging
import multiprocessing
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from paddleseg_infer.errors import ImageError
from paddleseg_infer.machine.paddle_build import PaddleBuild, find_paddle
from paddleseg_infer.outcomes import Job, Outcome, Times
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.settings import Settings

log = logging.getLogger("paddleseg_infer")

WARM_UPS = 5
STAGES = {stage: f"{stage}_time" for stage in Times._fields}  # AutoLog's names


def benchmark(
    jobs: Sequence[Job], settings: Settings, say: Callable[[str], None]
) -> Generator[Outcome, None, None]:
    """Segments `jobs` batch after batch in this process. Yields an Outcome for each.

    Prints the report at the end. Raises ConfigError if nothing can start, and RunError if the run
    can't go on.
    """
    segmenter = Segmenter(
        settings.run.config,
        model=settings.model,
        engine=replace(settings.engine, num_workers=1),
        sample=[job.image for job in jobs],
        threads=1,
    )
    segmenter.load()
    _warm_up(segmenter, jobs, settings)
    folder = os.path.dirname(os.path.abspath(settings.run.config))
    model_name = settings.run.model_name or os.path.basename(folder)
    precision = segmenter.options.precision
    auto_log = _auto_log(segmenter, model_name, precision, say)
    times: list[Times] = []
    engines: Counter[str] = Counter()  # the images that each engine has run
    started = time.perf_counter()
    try:
        for outcome in _batch_after_batch(segmenter, jobs, settings):
            if outcome.times:
                times.append(outcome.times)
                engines[outcome.engines] += 1
            yield outcome
        seconds = time.perf_counter() - started
        if not times:
            log.warning("the benchmark has no report, because no image was done")
            return
        if not (auto_log and _reported(auto_log, times)):
            for line in _own_report(segmenter, model_name, precision, times):
                say(line + "\n")
        say(f" images_per_second: {len(times) / seconds:.4g}\n")
        for engine, count in engines.most_common():
            say(f" engine: {engine}: {count} of {len(times)} images\n")
    finally:
        for process in multiprocessing.active_children():  # AutoLog doesn't end its process
            process.kill()


def _warm_up(segmenter: Segmenter, jobs: Sequence[Job], settings: Settings) -> None:
    """Runs the first batch WARM_UPS times. With `crop_size` once: an image has many windows."""
    try:
        for _ in range(1 if settings.model.crop_size else WARM_UPS):
            segmenter([job.image for job in jobs[: segmenter.batch_size]])
    except ImageError:
        log.warning("the warm-up failed, because an image of the first batch can't be run")


def _batch_after_batch(
    segmenter: Segmenter, jobs: Sequence[Job], settings: Settings
) -> Iterator[Outcome]:
    for first in range(0, len(jobs), segmenter.batch_size):
        batch = jobs[first : first + segmenter.batch_size]
        for result in segmenter.save(batch, settings.saving):
            yield result.outcome


# ---- with AutoLog ------------------------------------------------------------------------------


def _auto_log(
    segmenter: Segmenter, model_name: str, precision: str, say: Callable[[str], None]
) -> Any:
    """Returns a started AutoLogger, or None if it isn't installed or doesn't work."""
    try:
        from auto_log import AutoLogger  # type: ignore[import-not-found]
    except Exception as error:  # for example: it imports GPUtil, which fails on Python 3.12
        if getattr(error, "name", None) != "auto_log":
            log.warning(
                "auto_log can't be imported (%s): this program prints its own report", error
            )
        return None
    printer = logging.getLogger("paddleseg_infer.benchmark")
    printer.propagate = False
    printer.handlers = [_Saying(say)]
    on_gpu = segmenter.options.device == "gpu"
    try:
        return AutoLogger(
            model_name=model_name,
            model_precision=precision,
            batch_size=segmenter.batch_size,
            data_shape=_shape(segmenter),
            save_path=None,
            inference_config=segmenter.load().config,
            pids=os.getpid(),
            process_name=None,
            gpu_ids=0 if on_gpu else None,
            time_keys=list(STAGES.values()),
            warmup=0,
            logger=printer,
        )
    except Exception as error:  # another program's module may raise anything
        log.warning("auto_log doesn't work (%s): this program prints its own report", error)
        return None


class _Saying(logging.Handler):
    def __init__(self, say: Callable[[str], None]):
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage() + "\n")


def _reported(auto_log: Any, times: Sequence[Times]) -> bool:
    try:
        for stage, name in STAGES.items():
            auto_log.times.times[name] = [getattr(each, stage) for each in times]
        auto_log.times.total_time = [sum(each) for each in times]
        auto_log.report()
    except SystemExit:  # some versions end the process here
        pass
    except Exception as error:  # AutoLog may raise anything
        log.warning("auto_log doesn't work (%s): this program prints its own report", error)
        return False
    return True


# ---- without AutoLog --------------------------------------------------------------------------


def _own_report(
    segmenter: Segmenter, model_name: str, precision: str, times: Sequence[Times]
) -> Iterator[str]:
    build, config = find_paddle(), segmenter.load().config
    on_gpu = config.use_gpu()
    yield "---------------------- Env info ----------------------"
    yield f" OS_version: {platform.platform()}"
    yield f" CUDA_version: {build.cuda if on_gpu else None}"
    yield f" CUDNN_version: {build.cudnn if on_gpu else None}"
    yield " drivier_version: None"  # AutoLog's spelling
    yield "---------------------- Paddle info ----------------------"
    yield f" paddle_version: {_version(build)}"
    yield f" paddle_commit: {build.commit}"
    yield " log_api_version: 1.0"
    yield "----------------------- Conf info -----------------------"
    yield f" runtime_device: {'gpu' if on_gpu else 'cpu'}"
    yield f" ir_optim: {config.ir_optim()}"
    yield " enable_memory_optim: True"
    yield f" enable_tensorrt: {config.tensorrt_engine_enabled()}"
    yield f" enable_mkldnn: {config.mkldnn_enabled()}"
    yield f" cpu_math_library_num_threads: {config.cpu_math_library_num_threads()}"
    yield "----------------------- Model info ----------------------"
    yield f" model_name: {model_name}"
    yield f" precision: {precision}"
    yield "----------------------- Data info -----------------------"
    yield f" batch_size: {segmenter.batch_size}"
    yield f" input_shape: {_shape(segmenter)}"
    yield f" data_num: {len(times)}"
    yield "----------------------- Perf info -----------------------"
    yield f" cpu_rss(MB): {_resident_mb()}, gpu_rss(MB): None, gpu_util: None%"
    yield f" total time spent(s): {sum(map(sum, times)):.4f}"
    mean_ms = {
        stage: sum(getattr(each, stage) for each in times) / len(times) * 1000 for stage in STAGES
    }
    yield " " + ", ".join(f"{name}(ms): {mean_ms[stage]:.4f}" for stage, name in STAGES.items())


def _version(build: PaddleBuild) -> str:
    return ".".join(map(str, build.version))


def _shape(segmenter: Segmenter) -> str:
    """Returns the input shape in AutoLog's form: "channels,height,width" or "dynamic"."""
    sides = segmenter.deploy.input_shape[1:]
    return "dynamic" if -1 in sides else ",".join(map(str, sides))


def _resident_mb() -> float:
    """Returns the peak memory of this process in MB (2**20 bytes)."""
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(largest / (1 << 20 if sys.platform == "darwin" else 1 << 10), 4)
