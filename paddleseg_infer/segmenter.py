"""The program's Python interface: segments images in arrays or files.

>>> segmenter = Segmenter("export/deploy.yaml", device="cpu")
>>> labels = segmenter(["a.jpg", "b.jpg"])  # a list of uint8 [H, W] arrays of class ids
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from paddleseg_infer.batching import Batch, BatchReader, Item, Result, failed
from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.contract import Engine, NoBatchAxis
from paddleseg_infer.engines.load import load, set_up
from paddleseg_infer.engines.paddle import load_paddle
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.engines.shapes import Expected
from paddleseg_infer.engines.trial import SizeTrial
from paddleseg_infer.errors import ConfigError, EngineError, ImageError, RunError, shown
from paddleseg_infer.evaluation import judge_for
from paddleseg_infer.finishing import Finisher, Goal, LabelMaps, Output, SavedPictures, results_of
from paddleseg_infer.forms import class_count
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Job, Windows, nothing
from paddleseg_infer.pictures.files import prepare_save_dir
from paddleseg_infer.pictures.kinds import Pictures
from paddleseg_infer.pictures.palettes import palette_of
from paddleseg_infer.pictures.polygons import check_min_area
from paddleseg_infer.postprocess import OutputReader
from paddleseg_infer.settings import UNKNOWN, EvaluationOptions, ModelOptions, SavingOptions
from paddleseg_infer.sources.reading import reading_for
from paddleseg_infer.sources.source import Image, source_of
from paddleseg_infer.strips import StripMaker, Strips
from paddleseg_infer.tiling import check_sizes, checked_tiling
from paddleseg_infer.windows import Cutter, put_together

log = logging.getLogger("paddleseg_infer")

MAX_THREADS = 4  # for reading and saving; enough for a small network on large photos


class Segmenter:
    """A model that segments images. Call it with images to get their label maps.

    The options have the names of the command line's flags: they are the fields of
    `settings.ModelOptions` and `settings.EngineOptions`. `model` and `engine` are objects of these
    classes; single options replace their fields. With `use_trt`, `sample` must contain images of
    the sizes that will be segmented. At most `threads` threads read and save images. Raises
    ConfigError if the model can't run with these options.

    The engine is loaded while the first images are read; `load()` loads it earlier. Several threads
    may use one Segmenter: it runs one batch at a time.
    """

    def __init__(
        self,
        config_path: str | os.PathLike[str],
        *,
        model: ModelOptions = ModelOptions(),
        engine: EngineOptions = EngineOptions(),
        sample: Sequence[Image] = (),
        threads: int = MAX_THREADS,
        **options: Any,
    ):
        of_model = {name: options.pop(name) for name in list(options) if hasattr(model, name)}
        model, engine = replace(model, **of_model), replace(engine, **options)
        if not isinstance(model.batch_size, int) or model.batch_size < 1:
            raise ConfigError(
                f"batch_size must be a whole number above 0, not {model.batch_size!r}"
            )
        check_min_area(model.min_area)
        self._model = model
        self._tiling = checked_tiling(model.crop_size, model.stride, model.blend)
        check_sizes(self._tiling, model.network_size, ())
        self.deploy = load_deploy_config(config_path)
        if not self.deploy.transforms:
            log.info("%s has no transforms: images are used unchanged", shown(self.deploy.path))
        self._build = find_paddle()
        self.options = resolved(engine, self._build)
        self.batch_size = self.deploy.batch_size_for(model.batch_size)
        crop = self._tiling.crop if self._tiling else None
        self._reading = reading_for(self.deploy, model.bands, model.pixel_scale)
        images = [source_of(image, self._reading) for image in sample]
        self._expected = Expected(images, self.batch_size, crop)
        self._has_unknown = model.unknown_below is not None
        self._reads = OutputReader(
            model.with_argmax, model.threshold, self.deploy.output_op, model.unknown_below
        )
        classes = class_count(self.deploy.graph_facts) or len(self.deploy.class_names)
        # With --unknown_below, 255 in the labels is no class: the model has fewer.
        has_class_255 = classes > UNKNOWN if classes or self._has_unknown else None
        self._finisher = Finisher(self._reads, model.network_size, has_class_255, model.min_area)
        # Reading and saving use no more threads than the engine.
        self._threads = min(threads, self.options.cpu_threads or 1)
        self._engine: Engine | None = None
        # If two threads use one predictor, the process crashes, or they get each other's labels.
        self._turn = threading.RLock()
        self._make_save_dir = cache(prepare_save_dir)  # a folder that vanishes isn't made again

    def load(self) -> Engine:
        """Returns the engine; the first call loads it. Raises ConfigError."""
        with self._turn:
            if self._engine is None:
                setup = set_up(self.deploy, self.options, self._build, self._expected)
                self._engine = load(setup, self._expected)
            return self._engine

    @cached_property
    def _trial(self) -> SizeTrial:
        """Tries sizes in Paddle's own engine, whichever engine runs the images."""
        setup = Setup(self.deploy, self.options, self._build).in_fp32
        return SizeTrial(self.deploy, lambda: load_paddle(setup))

    def __call__(self, images: Image | Iterable[Image]) -> np.ndarray | list[np.ndarray]:
        """Returns the label map [H, W] of one image, or a list of them in the images' order.

        An image is a path, an array [H, W, C], whose channels are BGR if there are three, or a
        Pillow image. A label map contains class ids, as uint8, or as uint16 if an id is above 255
        or there are more than 256 classes.
        Raises ImageError at the first image that fails, and ConfigError if the model can't be
        loaded.
        """
        if isinstance(images, str | bytes | os.PathLike | np.ndarray) or not isinstance(
            images, Iterable
        ):
            return self([images])[0]
        labels: dict[int, np.ndarray] = {}
        for result in self.stream(images):
            if result.labels is None:
                name = result.item.name
                raise ImageError(f"image {result.index} ({name}): {result.error}")
            labels[result.index] = result.labels
        return [labels[index] for index in sorted(labels)]

    def stream(self, images: Iterable[Image]) -> Iterator[Result]:
        """Yields the Result of each image after its batch, while other threads read more images.

        Results may be in another order than `images`; `Result.index` is the position there. The
        number of images that are read in advance is bounded (see BatchReader.batches), and so is
        the memory. While the iterator of `images` blocks, the process can't exit.
        """
        # A copy, because the caller may use the same buffer for the next image.
        copies = (image.copy() if isinstance(image, np.ndarray) else image for image in images)
        sources = (source_of(image, self._reading) for image in copies)
        items = (Item(source, source.name, index) for index, source in enumerate(sources))
        return self._results(items, LabelMaps())

    def save(
        self,
        jobs: Iterable[Job],
        saving: SavingOptions = SavingOptions(),
        evaluation: EvaluationOptions = EvaluationOptions(),
        *,
        resume: bool = False,
        make_save_dir: Callable[[str], None] | None = None,
        on_batch: Callable[[], None] = nothing,
        on_windows: Callable[[Windows], None] = nothing,
        on_run_error: Callable[[RunError], None] = nothing,
    ) -> Iterator[Result]:
        """Segments each job's image and saves its pictures. Yields a Result for each job.

        With `resume`, an image of which a killed run has finished some rows goes on below them. If
        `evaluation` has a `label_path`, each mask is compared with the file `label` of its job.
        `make_save_dir` is called with the output folder after the engine is loaded. By default the
        folder is made, but only once: if it vanishes later, it isn't made again.
        `on_batch` is called before each batch, `on_windows` about once per second while the windows
        of an image are run, and when they are done. `on_run_error` is called immediately, in the
        thread where saving fails; the RunError is raised only after the next job has been read.
        Raises ConfigError, and RunError if no more pictures can be saved.
        """
        check_sizes(self._tiling, self._finisher.network_size, saving.save, saving.wgs84)
        palette = palette_of(saving.custom_color)
        of_unknown = "unknown" if self._has_unknown else ""
        named = self.deploy.class_names, saving.wgs84, of_unknown
        pictures = Pictures(saving.save, palette, *named, saving.overviews)
        make_save_dir = make_save_dir or self._make_save_dir
        judge = judge_for(self.deploy, evaluation)
        parts = self.deploy, self._model, self.options, self._reading, self._finisher.has_class_255
        maker = StripMaker(*parts, str(self._build), saving.save_dir, resume)
        hooks = make_save_dir, on_batch, on_windows, on_run_error
        goal = SavedPictures(pictures, saving.save_dir, judge, maker, *hooks)
        items = (
            Item(source_of(job.image, self._reading), shown(job.image), index, job)
            for index, job in enumerate(jobs)
        )
        return self._results(items, goal)

    def _results(self, items: Iterable[Item], goal: Goal) -> Iterator[Result]:
        if self._tiling is None:
            with ThreadPoolExecutor(self._threads) as pool:
                yield from self._run(items, goal, partial(self._finisher.image, goal), pool)
            return
        read_scores = partial(self._reads, kinds=goal.pictures.kinds)
        keeps_images = "overlay" in goal.pictures.kinds
        cutter = Cutter(self._tiling, read_scores, keeps_images, goal.strips_of, goal.on_windows)
        finishing: deque[Future[Result]] = deque()
        with closing(cutter), ThreadPoolExecutor(self._threads) as pool:
            finish = partial(self._finisher.window, goal)
            results = self._run(cutter.windows(items), goal, finish, pool)
            try:
                for done in put_together(results):
                    if isinstance(done, Result):
                        yield done
                        continue
                    if isinstance(done.rows, Strips):
                        make = partial(self._finisher.strips, goal, done.item, done.rows)
                    else:
                        make = partial(self._finisher.mosaic, goal, done.item, done.segmentation())
                    finishing.append(pool.submit(make))
                    # If the pool has a second thread, the next image's windows are run meanwhile.
                    yield from results_of(finishing, len(finishing) - 1)
            except RunError as error:
                goal.on_run_error(error)
                yield from results_of(finishing, len(finishing))
                raise
            yield from results_of(finishing, len(finishing))

    def _run(
        self,
        items: Iterable[Item | Result],
        goal: Goal,
        finish: Callable[[Output], Result],
        pool: ThreadPoolExecutor,
    ) -> Iterator[Result]:
        """Runs batch after batch; other threads call `finish` on the previous batch's outputs."""
        keeps_images = "overlay" in goal.pictures.kinds and self._tiling is None
        reader = BatchReader(self.deploy, self.batch_size, self._threads, keeps_images)
        batches = reader.batches(items, pool)
        finishing: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(next, batches, None)
            self.load()
            goal.prepare()
            while (batch := coming.result()) is not None:
                coming = ahead.submit(next, batches, None)
                if isinstance(batch, Result):
                    yield batch
                    continue
                before = len(finishing)
                for output in self._outputs(batch, reader, goal):
                    if isinstance(output, Result):
                        yield output
                    else:
                        finishing.append(pool.submit(finish, output))
                yield from results_of(finishing, before)
            yield from results_of(finishing, len(finishing))

    def _outputs(self, batch: Batch, reader: BatchReader, goal: Goal) -> Iterator[Output | Result]:
        """Runs one batch and yields its outputs. If the network can't run it, runs each half.

        Yields a failed Result for an image that fails even alone.
        """
        engine = self.load()
        started = time.perf_counter()
        goal.on_batch()
        try:
            with self._turn:
                output, ran = engine(batch.tensor_nchw)
        except NoBatchAxis as error:
            if self._reads.kind:  # larger batches were fine
                yield failed(batch.items[0], ImageError(str(error)))
                return
            raise ConfigError(f"{shown(self.deploy.graph)}: {error}") from None
        except (EngineError, MemoryError) as error:
            if len(batch.items) == 1:
                with self._turn:
                    height, width = batch.tensor_nchw.shape[2:]
                    refusal = self._trial.refusal(height, width, error, goal.on_batch)
                yield failed(batch.items[0], refusal)
                return
            for half in reader.halves(batch):
                yield from self._outputs(half, reader, goal)
            return
        try:
            with self._turn:
                self._reads.learn(output, batch.tensor_nchw.shape[2:], self.deploy.graph_facts)
        except ValueError as error:
            raise ConfigError(f"{shown(self.deploy.graph)}: {error}") from None
        output = self._reads.channels_first(output)
        goal.check(self._reads.kind, output.shape[1])
        if self._tiling:
            self._tiling.check(self._reads.kind)
        inference = (time.perf_counter() - started) / len(batch.items)
        # The output may be longer than the items: copies of an image may fill the batch.
        for item, values in zip(batch.items, output, strict=False):
            times = item.times.plus(inference=inference)
            yield Output(replace(item, times=times, ran=(ran,)), values)
