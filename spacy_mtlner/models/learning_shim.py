"""What the torch modules in a pipeline have in common when their weights change."""

import ctypes

from thinc.api import Optimizer, PyTorchShim, Shim

TRIM_AFTER = 2  # Updates.


class LearningShim(PyTorchShim):
    """A torch module of which only the weights with a gradient change, and whose training takes no
    more memory with every step.
    """

    _n_updates = 0

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
        self._n_updates += 1
        if self._n_updates % TRIM_AFTER == 0:
            release_memory()


def release_memory() -> None:
    """Give freed memory back to the system. The C library of Linux keeps it in pieces between what
    is in use, and a training on the CPU, whose batches are never of the same size, would take some
    megabytes more with every step.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # Another C library.
        pass
