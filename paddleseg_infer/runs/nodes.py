"""The nodes of a Ray cluster: whether they can run the program, and with how many threads."""

from collections.abc import Sequence
from typing import Any

from paddleseg_infer.engine_options import MOST_THREADS, EngineOptions
from paddleseg_infer.errors import ConfigError
from paddleseg_infer.runs.actor import Needs, obstacle


def processors_of_nodes(ray: Any, needs: Needs) -> list[int]:
    """Returns the number of processors of each node. Raises ConfigError if a node can't work."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = [
        ray.remote(num_cpus=0)(obstacle)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(needs)
        for node in nodes
    ]
    for node, answer in zip(nodes, asked, strict=True):
        try:
            why = ray.get(answer)
        except ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[-1]
        if why:
            raise ConfigError(
                f"--ray: node {node['NodeManagerAddress']} can't run this program: {why}"
            )
    if not nodes:
        raise ConfigError("--ray: no node of the cluster has processors")
    return [int(node["Resources"]["CPU"]) for node in nodes]


def threads_per_actor(processors: Sequence[int], engine: EngineOptions) -> int:
    """Returns the threads of each actor. Raises ConfigError if no node has enough processors."""
    if engine.cpu_threads is None:
        return threads_for(processors, engine.num_workers)
    if engine.cpu_threads > max(processors):
        raise ConfigError(
            f"--ray: --cpu_threads is {engine.cpu_threads}, but the processors of the largest "
            f"node are {max(processors)}: use a smaller --cpu_threads"
        )
    return engine.cpu_threads


def threads_for(processors: Sequence[int], num_workers: int) -> int:
    """Returns the most threads per actor with which `num_workers` actors fit on the nodes.

    `processors` has the number of processors of each node. The result is at most MOST_THREADS, and
    1 if the actors never fit.
    """
    for threads in range(min(MOST_THREADS, max(processors)), 1, -1):
        if sum(count // threads for count in processors) >= num_workers:
            return threads
    return 1
