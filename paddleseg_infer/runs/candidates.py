"""The flags that `choose` tries: engines and precisions, and workers times threads."""

import itertools
from collections.abc import Sequence

from paddleseg_infer.cpu_config import refusal
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engine_options import MOST_THREADS, EngineOptions
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.machine.processor import missing_for_bf16

Flags = tuple[str, ...]


def engines_for(deploy: DeployConfig, build: PaddleBuild) -> list[Flags]:
    """Returns the flags of the engines and precisions that may run the model, the default first."""
    others: dict[Flags, EngineOptions] = {
        ("--enable_openvino",): EngineOptions("cpu", enable_openvino=True),
        ("--precision", "bf16"): EngineOptions("cpu", precision="bf16"),
        ("--precision", "int8"): EngineOptions("cpu", precision="int8"),
    }
    if missing_for_bf16():
        del others["--precision", "bf16"]
    if deploy.graph_facts.is_quantised:  # OpenVINO can't convert it
        del others[("--enable_openvino",)]
    return [(), *(flags for flags, how in others.items() if not refusal(how, deploy, build))]


def candidates(engines: Sequence[Flags], processors: int) -> list[Flags]:
    """Returns the flags of each run, the default first: engines, and workers times threads."""
    layouts: list[Flags] = [()]
    powers = itertools.takewhile(lambda power: power < processors, (2**n for n in range(1, 9)))
    for workers in [*powers, processors] if processors > 1 else []:
        threads = min(MOST_THREADS, processors // workers)
        layouts.append(("--num_workers", str(workers), "--cpu_threads", str(threads)))
    return [(*engine, *layout) for layout in layouts for engine in engines]
