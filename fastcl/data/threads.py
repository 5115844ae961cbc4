"""How many threads PyTorch takes in threads of one's own."""

import threading

import torch

_lock = threading.Lock()


def alone() -> None:
    """From here on kernels take this thread and no other, where several such work side by side.

    PyTorch keeps the number of each thread, but also the one that new threads begin with, which is
    set back: by a thread that ends with it.
    """
    with _lock:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(before,))
        other.start()
        other.join()
