"""Optimised graphs, kept between runs. Paddle takes 0.1 to 20 s to make one.

Paddle uses every such file that it finds, without checking what it was made for. So the files are
kept in the store, whose keys contain everything that they depend on.
"""

import logging
import os
import time
from dataclasses import dataclass
from typing import Any

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engines.native import create
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.graph import look_into
from paddleseg_infer.machine import processor
from paddleseg_infer.machine.store import Store, Unusable, files_of, key_of
from paddleseg_infer.option import kept_by

log = logging.getLogger("paddleseg_infer")

# A graph of 820 kB takes Paddle 21 s, graphs of 135 to 190 kB 0.1 to 0.5 s. With the second kind,
# the second start was 4 to 21 % faster, and the first, which keeps the graph, 0 to 5 % slower. For
# smaller graphs it takes longer to check the digests than it saves.
MIN_GRAPH_BYTES = 100_000
SLOW_SECONDS = 0.1
FORMAT = 1  # increased when this program sets up the engine in another way
OPTIMIZED_GRAPH, OPTIMIZED_PARAMS = "_optimized.pdmodel", "_optimized.pdiparams"  # Paddle's names


def create_predictor(setup: Setup, config: Any) -> Any:
    """Returns Paddle's predictor, from the optimised graph of an earlier run if one is kept.

    If the store can't be used, that is logged and the graph is made from `config`. Raises
    EngineError.
    """
    if not _is_kept(setup):
        return create(setup.core, config)
    store = Store(setup.options.cache_folder)
    making = _Making(setup, store)
    try:
        key = graph_key(setup, processor.described())
        return store.obtain(key, making.make, making.load, making.finish, waits=False)
    except (OSError, Unusable) as error:
        store.log_unusable(error)
    return create(setup.core, config)


@dataclass(frozen=True)
class _Making:
    """Makes and loads an entry of the store."""

    setup: Setup
    store: Store

    def make(self, folder: str) -> Any:
        self.store.need_space(space_for(self.setup.deploy))
        config = self.setup.make_config()
        config.set_optim_cache_dir(folder)
        config.enable_save_optim_model(True)
        started = time.monotonic()
        predictor = create(self.setup.core, config)
        if time.monotonic() - started < SLOW_SECONDS:  # not worth keeping: the entry is empty
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
        return predictor

    def finish(self, folder: str) -> None:
        if os.listdir(folder):  # Paddle doesn't notice if a full disk truncates a file
            look_into(*(os.path.join(folder, name) for name in (OPTIMIZED_GRAPH, OPTIMIZED_PARAMS)))

    def load(self, entry: str) -> Any:
        config = self.setup.make_config()
        if files_of(entry):
            config.set_optim_cache_dir(entry)
            config.use_optimized_model(True)
        return create(self.setup.core, config)


def _is_kept(setup: Setup) -> bool:
    """Whether this model's optimised graph can be kept, and is large enough to be worth it."""
    options = setup.options
    if not options.cache_folder or options.device != "cpu":
        return False
    is_low = options.precision != "fp32"  # only Paddle's log shows what runs in int8
    if setup.deploy.is_pir or setup.build.version < (3, 0, 0) or is_low:
        if options.cache_dir is not None:
            log.warning(
                "--cache_dir has no effect: optimised graphs are kept only for a pdmodel in "
                "fp32, with Paddle 3"
            )
        return False
    return os.path.getsize(setup.deploy.graph) >= MIN_GRAPH_BYTES


def graph_key(setup: Setup, processor: str) -> str:
    """Returns the key of an optimised graph: a digest of everything that it depends on.

    `processor` is the result of `processor.described`: Paddle's layout of weights depends on it.
    """
    deploy, build = setup.deploy, setup.build
    settings = (FORMAT, str(build), build.commit, *kept_by("graph", setup.options), processor)
    return key_of([deploy.graph, deploy.params], *settings)


def space_for(deploy: DeployConfig) -> int:
    """Returns the most bytes of the files that Paddle makes from a model."""
    return 3 * (os.path.getsize(deploy.graph) + os.path.getsize(deploy.params))
