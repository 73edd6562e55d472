"""Images to label maps: the program's Python interface.

>>> segmenter = Segmenter("export/deploy.yaml", device="cpu")
>>> labels = segmenter(["a.jpg", "b.jpg"])  # a list of uint8 [H, W] arrays of class ids
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from paddleseg_infer import postprocess
from paddleseg_infer.batching import Ahead, Batch, BatchReader, Result, Undo, told
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engines.load import BoundedPredictor, load_for_images
from paddleseg_infer.engines.paddle import Predictor
from paddleseg_infer.engines.shapes import Expected
from paddleseg_infer.errors import ConfigError, EngineError, ImageError, RunError, shown
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Job, Times
from paddleseg_infer.pictures.files import prepare_save_dir, target_of, write_whole
from paddleseg_infer.pictures.kinds import Pictures, Segmentation
from paddleseg_infer.pictures.palettes import PADDLESEG
from paddleseg_infer.settings import EngineOptions
from paddleseg_infer.sources.path import PathSource
from paddleseg_infer.sources.source import Image, Source, source_of
from paddleseg_infer.tiling import check_sizes, checked_tiling
from paddleseg_infer.windows import Mosaic, Windows

if TYPE_CHECKING:
    from paddleseg_infer.engines.openvino import OpenVinoPredictor

log = logging.getLogger("paddleseg_infer")

MAX_THREADS = 4  # beside the engine's: enough for a small network on large photos
LABELS_ONLY = Pictures(kinds=())
Output = tuple[int, Undo, np.ndarray, np.ndarray | None, Times]  # of one image of a batch


class Segmenter:
    """A loaded model, to be called with images.

    Options are the command line's: `batch_size`, `network_size` (label maps of the network's size,
    as PaddleSeg's script gives, instead of the image's), `with_argmax`, `threshold`, `crop_size`
    and `stride` (width and height of the windows that large images are cut into, and the steps
    between them), and those of `config.EngineOptions`. With `use_trt`, `sample` are images of the
    sizes to come. With `in_turn` one thread reads and saves, for measuring; with `one_by_one` each
    image's result comes before the next image is asked for. `on_batch` is called before each batch,
    `on_run_error` from some thread before `save` raises one: it waits for the next image first.
    Raises ConfigError for a model or options that can't run. The engine is loaded while the first
    images are read; `load()` loads it before. One thread at a time may use a Segmenter.
    """

    def __init__(
        self,
        config_path: str | os.PathLike[str],
        *,
        batch_size: int = 1,
        network_size: bool = False,
        with_argmax: bool = False,
        threshold: float = 0.5,
        crop_size: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        sample: Sequence[Image] = (),
        in_turn: bool = False,
        one_by_one: bool = False,
        **engine: Any,
    ):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size must be a whole number above 0, not {batch_size!r}")
        self._tiling = checked_tiling(crop_size, stride)
        check_sizes(self._tiling, network_size, ())
        self.deploy = load_deploy_config(config_path)
        if not self.deploy.transforms:
            log.info("%s names no transforms: images go in as they are", shown(self.deploy.path))
        self._build = find_paddle()
        self.options = options = EngineOptions(**engine).resolved(self._build)
        self.batch_size = batch_size = self.deploy.batch_size_for(batch_size)
        crop = self._tiling.crop if self._tiling else None
        self._expected = Expected([source_of(image) for image in sample], batch_size, crop)
        self._network_size = network_size
        self._reads = postprocess.OutputReader(with_argmax, threshold, self.deploy.output_op)
        self.on_batch: Callable[[], None] = lambda: None
        self.on_run_error: Callable[[RunError], None] = lambda error: None
        self._one_by_one = one_by_one
        # Reading and saving are given as many threads as the engine.
        self._threads = 1 if in_turn or one_by_one else min(MAX_THREADS, options.cpu_threads or 1)
        self._prepared: set[str] = set()  # output folders: one that vanishes isn't made again
        self._reader = BatchReader(self.deploy, 1 if one_by_one else batch_size, self._threads)

    def load(self) -> None:
        """Loads the engine. Raises ConfigError."""
        _ = self._predictor

    @property
    def engine_config(self) -> Any:
        """The `paddle.inference.Config` that the engine was made with."""
        return self._predictor.config

    @cached_property
    def _predictor(self) -> "Predictor | OpenVinoPredictor | BoundedPredictor":
        return load_for_images(self.deploy, self.options, self._build, self._expected)

    def __call__(self, images: Image | Iterable[Image]) -> np.ndarray | list[np.ndarray]:
        """Label maps [H, W] of class ids, of images in their order.

        They are uint8, or uint16 where a class id or the number of classes passes what that holds.
        An image is a path or an array, uint8 BGR [H, W, 3]; for a single one its label map comes
        back, for several a list. Raises ImageError at the first image that fails.
        """
        single = isinstance(images, str | os.PathLike | np.ndarray)
        given: list[Image] = [images] if single else list(images)  # type: ignore[list-item, arg-type]
        labels: dict[int, Any] = {}
        for result in self.stream(given):
            if result.error:
                name = source_of(given[result.index]).name
                raise ImageError(f"image {result.index} ({name}): {result.error}")
            labels[result.index] = result.labels
        return labels[0] if single else [labels[index] for index in range(len(labels))]

    def stream(self, images: Iterable[Image]) -> Iterator[Result]:
        """Yields results as their batches end, while the next images are read, in other threads.

        How many are read before their turn is bounded (see BatchReader.batches), and so is memory.
        """
        return self._segmented(
            map(source_of, images),
            LABELS_ONLY,
            lambda index, segmentation: Result(index, segmentation.labels),
        )

    def save(
        self,
        jobs: Iterable[Job],
        save_dir: str,
        kinds: Sequence[str] = ("mask",),
        palette: bytes = PADDLESEG,
        make_save_dir: bool = True,
    ) -> Iterator[tuple[Job, Result]]:
        """Segments each job's image and saves its pictures; yields each with what became of it.

        `kinds` are those of `pictures.KINDS`. With `make_save_dir` it is made once the engine is
        loaded. Raises ConfigError, and RunError where nothing can be saved any more.
        """
        check_sizes(self._tiling, self._network_size, kinds)
        pictures = Pictures(kinds, palette, self.deploy.class_names)
        taken: dict[int, Job] = {}

        def images() -> Iterator[Source]:
            for index, job in enumerate(jobs):
                taken[index] = job
                yield PathSource(job.image)

        def save(index: int, segmentation: Segmentation) -> Result:
            # The mask comes last, and nothing is written before all could be made.
            try:
                for kind, data in reversed(list(pictures.encoded(segmentation))):
                    write_whole(data, save_dir, target_of(kind, taken[index].target))
            except RunError as error:
                self.on_run_error(error)
                raise
            return Result(index, size=segmentation.labels.shape[::-1])

        def prepare() -> None:
            if make_save_dir and save_dir not in self._prepared:
                prepare_save_dir(save_dir)
                self._prepared.add(save_dir)

        for result in self._segmented(images(), pictures, save, prepare):
            yield taken.pop(result.index), result

    def _segmented(
        self,
        images: Iterable[Source],
        pictures: Pictures,
        finish: Callable[[int, Segmentation], Result],
        prepare: Callable[[], None] = lambda: None,
    ) -> Iterator[Result]:
        """What `finish` makes of each image's segmentation. `prepare` is called once, before."""
        with ThreadPoolExecutor(self._threads) as pool:
            run = partial(self._worked, pictures=pictures, prepare=prepare, pool=pool)
            if self._tiling is None:
                yield from run(images, partial(self._finished, pictures, finish))
                return
            read_scores = partial(self._reads, with_score="score" in pictures.kinds)
            windows = Windows(images, self._tiling, read_scores)
            finishing: deque[Future[Result]] = deque()
            for item in windows.put_together(run(windows, self._window)):
                if isinstance(item, Result):
                    yield item
                    continue
                finishing.append(pool.submit(_put_together, item, finish))
                # The last goes on while the next image's windows are run.
                yield from told(finishing, len(finishing) - (not self._one_by_one))
            yield from told(finishing, len(finishing))

    def _worked(
        self,
        sources: Iterable[Source | ImageError],
        work: Callable[[Output], Result],
        *,
        pictures: Pictures,
        prepare: Callable[[], None],
        pool: ThreadPoolExecutor,
    ) -> Iterator[Result]:
        """Runs batch after batch; meanwhile `work` makes results of the outputs of the last."""
        finishing: deque[Future[Result]] = deque()
        keep = "overlay" in pictures.kinds and self._tiling is None
        with Ahead(self._reader.batches(sources, pool, keep), depth=1) as batches:
            self.load()
            prepare()
            for batch in batches:
                if isinstance(batch, Result):
                    yield batch
                    continue
                before = 1 << 30 if self._one_by_one else len(finishing)
                for item in self._outputs(batch, pictures):
                    if isinstance(item, Result):
                        yield item
                    else:
                        finishing.append(pool.submit(work, item))
                yield from told(finishing, before)
            yield from told(finishing, len(finishing))

    def _outputs(self, batch: Batch, pictures: Pictures) -> Iterator[Output | Result]:
        """Runs one batch; if the network refuses it, each of its halves."""
        started = time.perf_counter()
        self.on_batch()
        try:
            output = self._predictor(batch.tensor_nchw)
        except (EngineError, MemoryError) as error:
            if len(batch.indices) > 1:
                for half in self._reader.halves(batch):
                    yield from self._outputs(half, pictures)
                return
            height, width = batch.tensor_nchw.shape[2:]
            why = "there is not enough memory"
            if isinstance(error, EngineError):
                why = f"{error.advice or 'it may be too small'}: {error}"
            refusal = f"the network can't take it as {width}x{height}; {why}"
            yield Result(batch.indices[0], error=ImageError(refusal))
            return
        try:
            self._reads.learn(output)
        except ValueError as error:
            raise ConfigError(f"{shown(self.deploy.graph)}: {error}") from None
        pictures.check(self._reads.kind, output.shape[1])
        inference = (time.perf_counter() - started) / len(batch.indices)
        times = [Times(seconds, inference, 0.0) for seconds in batch.seconds]
        yield from zip(batch.indices, batch.undos, output, batch.images, times, strict=False)

    def _finished(
        self, pictures: Pictures, finish: Callable[[int, Segmentation], Result], item: Output
    ) -> Result:
        """What `finish` makes of one image's output."""
        index, undo, output, image_bgr, times = item

        def segmentation() -> Segmentation:
            labels, score = self._reads(output, "score" in pictures.kinds)
            if not self._network_size:
                labels = postprocess.restore(labels, undo)
                score = None if score is None else postprocess.restore(score, undo)
            return Segmentation(labels, score, image_bgr)

        return _timed(index, times, lambda: finish(index, segmentation()))

    def _window(self, item: Output) -> Result:
        """Of a window: labels, or the scores as they are, of the window's size."""
        index, undo, output, _, times = item
        is_labels = self._reads.kind == "labels"

        def restored() -> Result:
            if is_labels:
                labels = postprocess.label_map(output, "labels")
                return Result(index, labels=postprocess.restore(labels, undo))
            scores = output.astype(np.float32, copy=False)
            return Result(index, scores=postprocess.restore(scores, undo))

        return _timed(index, times, restored)


def _put_together(mosaic: Mosaic, finish: Callable[[int, Segmentation], Result]) -> Result:
    return _timed(mosaic.index, mosaic.times, lambda: finish(mosaic.index, mosaic.segmentation()))


def _timed(index: int, times: Times, make: Callable[[], Result]) -> Result:
    """What `make` returns or raises, with its time."""
    started = time.perf_counter()
    try:
        result = make()
    except ImageError as error:
        return Result(index, error=error)
    except (MemoryError, cv2.error) as error:
        return Result(index, error=ImageError(f"its mask can't be made: {error}"))
    spent = times.postprocess + time.perf_counter() - started
    return replace(result, times=times._replace(postprocess=spent))
