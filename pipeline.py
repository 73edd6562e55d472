"""Images to label maps: the program's Python interface.

>>> segmenter = Segmenter("export/deploy.yaml", device="cpu")
>>> labels = segmenter(["a.jpg", "b.jpg"])  # a list of uint8 [H, W] arrays of class ids
"""

import contextlib
import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np

import postprocess
import tensorrt_engine
import trt
from ahead import Ahead
from batches import Batch, BatchReader, Result, Source, Times, Undo
from config import EngineOptions
from deploy import load_deploy_config
from engines import BoundedPredictor, load_engine
from errors import ConfigError, EngineError, ImageError, shown
from files import prepare_save_dir, write_whole
from gpu import hint
from images import Job
from machine import find_paddle
from openvino_engine import OpenVinoPredictor
from predictor import Predictor, load_core

log = logging.getLogger("paddleseg_infer")

MAX_THREADS = 4  # beside the engine's: enough for a small network on large photos
NOTES = {  # what is worth a line, by the output's kind and whether --with_argmax was given
    ("labels", True): "--with_argmax has no effect: this model's output is labels already",
    ("scores", False): "this model's output is scores: their argmax is taken (--with_argmax)",
    ("foreground", False): "this model has one channel: class 1 is where it is above 0.5",
    ("foreground", True): "--with_argmax has no effect on one channel: class 1 is above 0.5",
}


class Segmenter:
    """A loaded model, to be called with images.

    Options are the command line's: `batch_size`, `network_size` (label maps of the network's size,
    as PaddleSeg's script gives, instead of the image's), `with_argmax`, and those of
    `config.EngineOptions`. With `use_trt`, `sample` are images of the sizes to come. With `in_turn`
    one thread reads and saves, for measuring.
    Raises ConfigError for a model or options that can't run.

    The engine is loaded while the first images are read; `load()` loads it before. One thread at a
    time may use a Segmenter.
    """

    def __init__(
        self,
        config_path: str | os.PathLike[str],
        *,
        batch_size: int = 1,
        network_size: bool = False,
        with_argmax: bool = False,
        sample: Sequence[Source] = (),
        in_turn: bool = False,
        **engine: Any,
    ):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size must be a whole number above 0, not {batch_size!r}")
        self.deploy = load_deploy_config(config_path)
        if not self.deploy.transforms:
            log.info("%s names no transforms: images go in as they are", shown(self.deploy.path))
        build = find_paddle()
        options = EngineOptions(**engine).resolved(build)
        self.batch_size = batch_size = self.deploy.batch_size_for(batch_size)
        self._network_size = network_size
        self._with_argmax = with_argmax
        self._kind: str | None = None  # of the model's output, known after the first batch
        self.options, self._build, self._sample = options, build, sample
        # Reading and saving are given as many threads as the engine.
        self._threads = 1 if in_turn else min(MAX_THREADS, options.cpu_threads or 1)
        self._prepared: set[str] = set()  # output folders: one that vanishes isn't made again
        self._reader = BatchReader(self.deploy, batch_size, ahead=self._threads)

    def load(self) -> None:
        """Loads the engine. Raises ConfigError."""
        _ = self._predictor

    @property
    def engine_config(self) -> Any:
        """The `paddle.inference.Config` that the engine was made with."""
        return self._predictor.config

    @cached_property
    def _predictor(self) -> Predictor | OpenVinoPredictor | BoundedPredictor:
        deploy, options, build = self.deploy, self.options, self._build
        if not options.use_trt:
            return load_engine(deploy, options, build)
        if not options.enable_auto_tune:
            by_size = trt.images_by_size(self._sample, deploy)
            shapes = trt.dynamic_shapes(by_size, deploy, self.batch_size)
            return load_engine(deploy, options, build, shapes)
        with tempfile.TemporaryDirectory() as folder:  # read as the engine is made
            path = options.auto_tuned_shape_file or os.path.join(folder, "shapes.pbtxt")
            trt.make_shape_file(path, self._collect_shapes)
            name = tensorrt_engine.input_name(load_core(build, use_gpu=True), deploy)
            shapes = trt.tuned_shapes(path, name, self.batch_size)
            return load_engine(deploy, replace(options, auto_tuned_shape_file=path), build, shapes)

    def _collect_shapes(self, path: str) -> int:
        """Has Paddle write the shapes that it meets to `path`; returns the number of runs."""
        by_size = trt.images_by_size(self._sample, self.deploy)
        engine = Predictor(self.deploy, self.options, self._build, collect_shapes_in=path)

        def run(image: Source, copies: int) -> None:
            engine(np.stack([self._reader.frame(image).tensor()] * copies))

        fewest = trt.fewest_images(self.deploy, self.batch_size)
        return trt.collect(run, by_size, fewest, self.batch_size)
        # Paddle writes the file as the engine and its handles go, with this function.

    def __call__(self, images: Source | Iterable[Source]) -> np.ndarray | list[np.ndarray]:
        """Label maps, uint8 [H, W] of class ids, of images in their order.

        An image is a path or an array, uint8 BGR [H, W, 3]; for a single one its label map comes
        back, for several a list. Raises ImageError at the first image that fails.
        """
        single = isinstance(images, str | os.PathLike | np.ndarray)
        sources: list[Source] = [images] if single else list(images)  # type: ignore[list-item, arg-type]
        labels: dict[int, Any] = {}
        for result in self.stream(sources):
            if result.error:
                source = sources[result.index]
                name = "array" if isinstance(source, np.ndarray) else shown(source)
                raise ImageError(f"image {result.index} ({name}): {result.error}")
            labels[result.index] = result.labels
        return labels[0] if single else [labels[index] for index in range(len(labels))]

    def stream(self, images: Iterable[Source]) -> Iterator[Result]:
        """Yields results as their batches end, while the next images are read, in other threads.

        How many are read before their turn is bounded (see BatchReader.batches), and so is memory.
        """
        with self._reading(images) as (batches, pool):
            yield from self._results(batches, pool, Result)

    def save_masks(self, jobs: Iterable[Job], save_dir: str) -> Iterator[tuple[Job, Result]]:
        """Segments each job's image and saves its mask; yields each with what became of it.

        Makes `save_dir` once the engine is loaded. Raises ConfigError.
        """
        taken: dict[int, Job] = {}

        def images() -> Iterator[str]:
            for index, job in enumerate(jobs):
                taken[index] = job
                yield job.image

        def save(index: int, labels: np.ndarray) -> Result:
            write_whole(postprocess.encode_mask(labels), save_dir, taken[index].target)
            return Result(index)

        with self._reading(images()) as (batches, pool):
            self.load()
            if save_dir not in self._prepared:
                prepare_save_dir(save_dir)
                self._prepared.add(save_dir)
            for result in self._results(batches, pool, save):
                yield taken.pop(result.index), result

    @contextlib.contextmanager
    def _reading(self, images: Iterable[Source]) -> Iterator[tuple[Ahead, ThreadPoolExecutor]]:
        """Batches that are made ahead, and threads to finish the results in."""
        with (
            ThreadPoolExecutor(self._threads) as pool,
            Ahead(self._reader.batches(images, pool), depth=1) as batches,
        ):
            yield batches, pool

    def _results(
        self,
        batches: Iterable[Batch | Result],
        pool: ThreadPoolExecutor,
        finish: Callable[[int, Any], Result],
    ) -> Iterator[Result]:
        """Runs batch after batch; meanwhile `finish` makes results of the labels of the last."""
        finishing: deque[Future[Result]] = deque()
        for batch in batches:
            if isinstance(batch, Result):
                yield batch
                continue
            before = len(finishing)
            for item in self._outputs(batch):
                if isinstance(item, Result):
                    yield item
                else:
                    finishing.append(pool.submit(self._finished, *item, finish))
            for _ in range(before):
                yield finishing.popleft().result()
        for result in finishing:
            yield result.result()

    def _outputs(self, batch: Batch) -> Iterator[tuple[int, Undo, np.ndarray, Times] | Result]:
        """Runs one batch; if the network refuses it, each of its images by itself."""
        started = time.perf_counter()
        try:
            output = self._predictor(batch.tensor_nchw)
        except (EngineError, MemoryError) as error:
            if len(batch.indices) > 1:
                read = zip(
                    batch.indices, batch.undos, batch.seconds, batch.tensor_nchw, strict=False
                )
                for item in read:
                    yield from self._outputs(self._reader.batch_of_one(*item))
                return
            height, width = batch.tensor_nchw.shape[2:]
            why = str(error) if isinstance(error, EngineError) else "not enough memory"
            advice = hint(why) or "it may be too small"
            refusal = f"the network can't take it as {width}x{height}; {advice}: {why}"
            yield Result(batch.indices[0], error=ImageError(refusal))
            return
        self._kind = self._kind or self._kind_of(output)
        inference = (time.perf_counter() - started) / len(batch.indices)
        times = [Times(seconds, inference, 0.0) for seconds in batch.seconds]
        yield from zip(batch.indices, batch.undos, output, times, strict=False)

    def _kind_of(self, output: np.ndarray) -> str:
        try:
            kind = postprocess.output_kind(output)
        except ValueError as error:
            raise ConfigError(f"{shown(self.deploy.graph)}: {error}") from None
        if note := NOTES.get((kind, self._with_argmax)):
            log.info("%s", note)
        return kind

    def _finished(
        self,
        index: int,
        undo: Undo,
        output: np.ndarray,
        times: Times,
        finish: Callable[[int, Any], Result],
    ) -> Result:
        """The labels of one image out of the network's output, and what `finish` makes of them."""
        started = time.perf_counter()
        try:
            labels = postprocess.label_map(output, self._kind or "")
            if not self._network_size:
                labels = postprocess.restore(labels, undo)
            result = finish(index, labels)
        except ImageError as error:
            return Result(index, error=error)
        except (MemoryError, cv2.error) as error:
            return Result(index, error=ImageError(f"its mask can't be made: {error}"))
        return replace(result, times=replace(times, postprocess=time.perf_counter() - started))
