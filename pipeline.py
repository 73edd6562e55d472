"""Images to label maps: the program's Python interface.

>>> segmenter = Segmenter("export/deploy.yaml", device="cpu")
>>> labels = segmenter(["a.jpg", "b.jpg"])  # a list of uint8 [H, W] arrays of class ids
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import postprocess
from config import EngineOptions, load_deploy_config
from errors import ConfigError, ImageError, reason, shown
from images import Job
from machine import PaddleBuild, find_paddle
from predictor import EngineError, Predictor
from preprocess import Sample, prepare, read_image

log = logging.getLogger("paddleseg_infer")

Source = str | os.PathLike[str] | np.ndarray
MAX_TUNING_RUNS = 10
NOTES = {  # what is worth a line, by the output's kind and whether --with_argmax was given
    ("labels", True): "--with_argmax has no effect: this model's output is labels already",
    ("scores", False): "this model's output is scores: their argmax is taken (--with_argmax)",
    ("foreground", False): "this model has one channel: class 1 is where it is above 0.5",
    ("foreground", True): "--with_argmax has no effect on one channel: class 1 is above 0.5",
}


@dataclass(frozen=True)
class Result:
    """What became of one image: either `labels` or `error` is set."""

    index: int  # of the image among those given
    labels: np.ndarray | None = None  # uint8 [H, W]
    error: ImageError | None = None


class Segmenter:
    """A loaded model, to be called with images.

    Options are the command line's: `batch_size`, `network_size` (label maps of the network's size,
    as PaddleSeg's script gives, instead of the image's), `with_argmax`, and those of
    `config.EngineOptions`. With `enable_auto_tune`, `tune_on` are images to collect TensorRT's
    dynamic shapes from. Raises ConfigError for a model or options that can't run.
    """

    def __init__(
        self,
        config_path: str | os.PathLike[str],
        *,
        batch_size: int = 1,
        network_size: bool = False,
        with_argmax: bool = False,
        tune_on: Sequence[Source] = (),
        **engine: Any,
    ):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size must be a whole number above 0, not {batch_size!r}")
        self.deploy = load_deploy_config(config_path)
        if not self.deploy.transforms:
            log.info("%s names no transforms: images go in as they are", shown(self.deploy.path))
        build = find_paddle()
        options = EngineOptions(**engine).resolved(build)
        self._batch_size = batch_size
        if self.deploy.input_shape[0] not in (-1, batch_size):
            self._batch_size = self.deploy.input_shape[0]
            log.info("this model was exported for batches of %d: using that", self._batch_size)
        self._network_size = network_size
        self._with_argmax = with_argmax
        self._kind: str | None = None  # of the model's output, known after the first batch
        if options.use_trt and options.enable_auto_tune:
            with tempfile.TemporaryDirectory() as folder:  # read as the engine is made
                tuned = self._tuned(options, build, tune_on, folder)
                self._predictor = Predictor(self.deploy, tuned, build)
        else:
            self._predictor = Predictor(self.deploy, options, build)

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

    def save_masks(self, jobs: Sequence[Job], save_dir: str) -> Iterator[tuple[Job, str]]:
        """Segments each job's image and saves its mask; yields each with "" or why it failed."""
        for result in self.stream(job.image for job in jobs):
            job, error = jobs[result.index], result.error
            if result.labels is not None:
                try:
                    mask = postprocess.encode_mask(result.labels)
                    postprocess.write_whole(mask, save_dir, job.target)
                except ImageError as failure:
                    error = failure
            yield job, str(error or "")

    def stream(self, images: Iterable[Source]) -> Iterator[Result]:
        """Reads images one by one and yields their results as their batches end.

        Only tensors of one shape meet in a batch. A batch that isn't full runs when the images end,
        or once `4 * batch_size` more have been read, so memory stays bounded.
        """
        waiting: dict[tuple[int, ...], list[tuple[int, Sample]]] = {}  # by shape, oldest first
        for index, image in enumerate(images):
            try:
                sample = self._sample(image)
            except ImageError as error:
                yield Result(index, error=error)
                continue
            batch = waiting.setdefault(sample.tensor.shape, [])
            batch.append((index, sample))
            if len(batch) == self._batch_size:
                yield from self._run(waiting.pop(sample.tensor.shape))
            oldest = next(iter(waiting), None)
            if oldest and index - waiting[oldest][0][0] >= 4 * self._batch_size:
                yield from self._run(waiting.pop(oldest))
        for batch in waiting.values():
            yield from self._run(batch)

    def _tuned(
        self, options: EngineOptions, build: PaddleBuild, images: Sequence[Source], folder: str
    ) -> EngineOptions:
        """`options` with a file of dynamic shapes, collected over `images` unless it is there."""
        kept = options.auto_tuned_shape_file
        if kept and os.path.exists(kept):
            log.info("the dynamic shapes are those of %s", shown(kept))
            return options
        # Paddle ends the process where it can't write the file, so it gets one that it can.
        collected = os.path.join(folder, "shapes.pbtxt")
        collecting = Predictor(self.deploy, options, build, collect_shapes_in=collected)
        runs = 0
        for image in images:
            try:
                tensor = self._sample(image).tensor
                collecting(np.stack([tensor] * self._batch_size))
            except (ImageError, EngineError, MemoryError):
                continue  # its turn comes again, and its reason is told then
            runs += 1
            if runs == MAX_TUNING_RUNS:
                break
        del collecting  # Paddle writes the file when the predictor and its handles are gone
        if not os.path.getsize(collected):
            raise ConfigError("no image could be run to collect the dynamic shapes from")
        if kept:
            try:
                shutil.copyfile(collected, kept)
            except OSError as error:
                raise ConfigError(
                    f"--auto_tuned_shape_file {shown(kept)} can't be written: {reason(error)}"
                ) from None
        return replace(options, auto_tuned_shape_file=collected)

    def _sample(self, image: Source) -> Sample:
        if not isinstance(image, np.ndarray):
            image = read_image(os.fspath(image))
        elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(
                f"an array must be uint8 BGR [H, W, 3], not {image.dtype} {list(image.shape)}"
            )
        sample = prepare(image, self.deploy.transforms)
        height, width = sample.tensor.shape[1:]
        fixed_height, fixed_width = self.deploy.input_shape[2:]
        if fixed_height not in (-1, height) or fixed_width not in (-1, width):
            raise ImageError(
                f"the model takes {fixed_width}x{fixed_height} only (`input_shape`; -1 is any) and "
                f"the transforms make this image {width}x{height}: add a Resize to the transforms "
                f"in {shown(self.deploy.path)}, or export without --input_shape"
            )
        return sample

    def _run(self, batch: list[tuple[int, Sample]]) -> Iterator[Result]:
        """Runs one batch; if the network refuses it, each of its images by itself."""
        tensors = [sample.tensor for _, sample in batch]
        if self.deploy.input_shape[0] != -1:  # a batch that must be full: copies fill it
            tensors += tensors[-1:] * (self._batch_size - len(tensors))
        try:
            output = self._predictor(np.stack(tensors) if len(tensors) > 1 else tensors[0][None])
        except (EngineError, MemoryError) as error:
            if len(batch) > 1:
                for item in batch:
                    yield from self._run([item])
                return
            height, width = tensors[0].shape[1:]
            why = str(error) if isinstance(error, EngineError) else "not enough memory"
            refusal = f"the network can't take it as {width}x{height}; it may be too small: {why}"
            yield Result(batch[0][0], error=ImageError(refusal))
            return
        kind = self._kind = self._kind or self._kind_of(output)
        for (index, sample), image_output in zip(batch, output, strict=False):
            try:
                yield Result(index, labels=self._labels(image_output, kind, sample))
            except ImageError as error:
                yield Result(index, error=error)

    def _kind_of(self, output: np.ndarray) -> str:
        try:
            kind = postprocess.output_kind(output)
        except ValueError as error:
            raise ConfigError(f"{shown(self.deploy.graph)}: {error}") from None
        if note := NOTES.get((kind, self._with_argmax)):
            log.info("%s", note)
        return kind

    def _labels(self, output: np.ndarray, kind: str, sample: Sample) -> np.ndarray:
        labels = postprocess.label_map(output, kind)
        if self._network_size:
            return labels
        height, width = sample.tensor.shape[1:]
        return postprocess.restore(postprocess.resize_labels(labels, width, height), sample.undo)


def planned_run(config_path: str | os.PathLike[str], **engine: Any) -> dict[str, Any]:
    """The state of the engine's `Config` for these options: the model is loaded, nothing is run."""
    deploy = load_deploy_config(config_path)
    build = find_paddle()
    options = EngineOptions(**engine).resolved(build)
    return {"paddle": str(build), **Predictor(deploy, options, build).state}
