"""--benchmark prints a report, with or without AutoLog. It changes neither masks nor exit code.

No package registry has AutoLog, so the tests use a fake AutoLog. Like the real one, it starts a
process that never ends, reads values from the config, and calls sys.exit in its report.
"""

import re

import pytest
from conftest import masks, read_mask

AUTO_LOG = '''
import multiprocessing, sys, time

def sample(queue):
    while True:
        queue.put(100.0)
        time.sleep(0.2)

class Times:
    def __init__(self, keys):
        self.times, self.total_time = {key: [] for key in keys}, []

class AutoLogger:
    def __init__(self, model_name, model_precision, batch_size, data_shape, save_path,
                 inference_config, pids, process_name, gpu_ids, time_keys, warmup, logger):
        self.times, self.logger, self.name = Times(time_keys), logger, model_name
        self.threads = inference_config.cpu_math_library_num_threads()
        self.batch_size, self.precision = batch_size, model_precision
        context = multiprocessing.get_context("spawn")
        self.queue = context.Queue()
        context.Process(target=sample, args=(self.queue,)).start()

    def report(self):
        self.queue.get()
        about = f"{self.name} {self.precision} {self.batch_size} {self.threads}"
        self.logger.info(f" by AutoLog: {about}")
        for key, values in self.times.times.items():
            self.logger.info(f" {key}(ms): {sum(values) / len(values) * 1000:.4f} of {len(values)}")
        self.logger.info(f" data_num: {len(self.times.total_time)}")
        sys.exit(0)
'''  # fmt: skip


@pytest.fixture
def infer_with_auto_log(infer, model, photos, tmp_path):
    """A function that runs infer.py with a module `auto_log` that has this text."""

    def run(text, *flags):
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "auto_log.py").write_text(text)
        return infer(
            "--config", model, "--image_path", photos, "--benchmark", "True", "--cpu_threads", "1",
            *flags, PYTHONPATH=str(tmp_path / "modules"),
        )  # fmt: skip

    return run


def test_masks_and_exit_code_are_the_same_without_benchmark(infer, model, photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"")
    plain = infer("--config", model, "--image_path", photos, "--save_dir", "plain")
    flags = ["--benchmark", "--batch_size", "2", "--num_workers", "2"]
    run = infer("--config", model, "--image_path", photos, *flags)
    assert (run.code, plain.code) == (1, 1)
    assert "bad.jpg: the file is empty" in run.err
    assert "--num_workers has no effect with --benchmark" in run.err
    assert masks(tmp_path / "output") == masks(tmp_path / "plain")
    for name in masks(tmp_path / "plain"):
        one, other = (read_mask(tmp_path / folder / name) for folder in ("plain", "output"))
        assert (one == other).all()


def test_the_report_has_autologs_groups_and_keys(infer, model, photos):
    run = infer("--config", model, "--image_path", photos, "--benchmark", "--cpu_threads", "1")
    assert (run.code, run.err) == (0, "")
    groups = re.findall(r"^-+ (\w+ info) -+$", run.out, re.MULTILINE)
    assert groups == [
        "Env info",
        "Paddle info",
        "Conf info",
        "Model info",
        "Data info",
        "Perf info",
    ]
    values_by_key = dict(re.findall(r"([\w()]+): ([^,\n]+)", run.out))
    assert values_by_key["runtime_device"] == "cpu"
    assert values_by_key["cpu_math_library_num_threads"] == "1"
    assert (
        values_by_key["model_name"],
        values_by_key["precision"],
        values_by_key["batch_size"],
    ) == ("argmax", "fp32", "1")
    assert (values_by_key["data_num"], values_by_key["input_shape"]) == ("5", "dynamic")
    stages = [
        float(values_by_key[f"{s}_time(ms)"]) for s in ("preprocess", "inference", "postprocess")
    ]
    assert all(0 < milliseconds < 10_000 for milliseconds in stages)
    assert sum(stages) * 5 / 1000 == pytest.approx(
        float(values_by_key["total time spent(s)"[11:]]), rel=0.01
    )
    assert float(values_by_key["images_per_second"]) > 0
    assert run.out.splitlines()[-1].startswith("5 of 5 images done")


def test_an_installed_autolog_prints_the_report(infer_with_auto_log, tmp_path):
    run = infer_with_auto_log(AUTO_LOG, "--model_name", "mine", "--batch_size", "2")
    assert (run.code, run.err) == (0, "")
    lines = run.out.splitlines()
    assert lines[0] == " by AutoLog: mine fp32 2 1"
    assert [line.split("(")[0] for line in lines[1:4]] == [
        " preprocess_time", " inference_time", " postprocess_time",
    ]  # fmt: skip
    assert all(line.endswith(" of 5") for line in lines[1:4])
    assert lines[4] == " data_num: 5"
    assert lines[5].startswith(" images_per_second: ")
    assert re.fullmatch(r" engine: oneDNN fp32: (\d+) of \1 images", lines[6])
    assert lines[7].startswith("5 of 5 images done")
    assert len(masks(tmp_path / "output")) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import a_module_that_is_missing", "auto_log can't be imported (No module named 'a_mod"),
        ("raise KeyError('driver')", "auto_log can't be imported ('driver')"),
        ("AutoLogger = None", "auto_log doesn't work"),
        (AUTO_LOG.replace("self.queue.get()", "raise OSError('gone')"), "work (gone)"),
    ],
)
def test_a_broken_autolog_is_reported_and_replaced(infer_with_auto_log, text, message):
    run = infer_with_auto_log(text)
    assert run.code == 0
    [line] = run.err.splitlines()
    assert message in line
    assert line.endswith("this program prints its own report")
    assert "inference_time(ms): " in run.out


def test_a_run_without_a_good_image_has_no_report(infer, model, photos):
    for path in photos.iterdir():
        path.write_bytes(b"no image")
    run = infer("--config", model, "--image_path", photos, "--benchmark")
    assert run.code == 1
    assert "the warm-up failed" in run.err
    assert "the benchmark has no report" in run.err


def test_model_name_without_benchmark_gives_a_warning(infer, model, photos):
    run = infer("--config", model, "--image_path", photos, "--model_name", "mine")
    assert run.err == "warning: --model_name has no effect without --benchmark\n"
