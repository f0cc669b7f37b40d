"""What the torch modules in a pipeline have in common when their weights change."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thinc.api import Optimizer, PyTorchShim, Shim, xp2torch

GROWTH = 1.1  # Of the memory that an update takes, until what was freed is given back.


class LearningShim(PyTorchShim):
    """A torch module of which only the weights with a gradient change, and whose training takes no
    more memory with every step.
    """

    _limit = 0.0  # Bytes of memory; above it what is free is given back.
    _is_fresh = True  # Whether nothing was left of former updates when this one began.

    def copy(self) -> "LearningShim":
        """RETURNS (LearningShim): The same with a module of its own. It has an id of its own, by
        which an optimizer keeps what it knows of the weights: thinc's copies share that.
        """
        copied: LearningShim = super().copy()
        with Shim.global_id_lock:
            Shim.global_id += 1
            copied.id = Shim.global_id
        return copied

    def finish_update(self, optimizer: Optimizer) -> None:
        """Change the weights that have a gradient, and those alone: thinc leaves zeros, by which an
        optimizer with momentum would move what the next batches do not use.

        optimizer (Optimizer): The optimizer.
        """
        super().finish_update(optimizer)
        self._model.zero_grad(set_to_none=True)
        self._release_growth()

    @contextmanager
    def use_params(self, params: dict[Any, Any]) -> Iterator[None]:
        """Use other weights for a while, as an optimizer's averages: thinc looks for them under
        other keys than those by which an optimizer keeps them.

        params (dict[Any, Any]): The weights, by the shim's id and their names.
        YIELDS (None): Once, while they are in use.
        """
        own = {name: weight.data for name, weight in self._model.named_parameters()}
        used = {name: params[self.id, name] for name in own if (self.id, name) in params}
        backup = {name: own[name].clone() for name in used}
        for name, weight in used.items():
            own[name].copy_(xp2torch(weight))
        try:
            yield
        finally:
            for name, weight in backup.items():
                own[name].copy_(weight)

    def _release_growth(self) -> None:
        """Give memory back when it has grown: at every update it would take a fifth of the time,
        as the system has to clear each page that it hands out again.
        """
        used = measure_memory()
        if self._is_fresh:
            self._limit = max(self._limit, GROWTH * used)
        self._is_fresh = used > self._limit
        if self._is_fresh:
            release_memory()


def measure_memory() -> int:
    """RETURNS (int): The bytes of memory that this process takes; 0 where Linux does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def release_memory() -> None:
    """Give freed memory back to the system. The C library of Linux keeps it in pieces between what
    is in use, and a training on the CPU, whose batches are never of the same size, would take some
    megabytes more with every step.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # Another C library.
        pass
