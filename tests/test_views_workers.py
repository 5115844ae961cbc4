"""Views inside the workers of a DataLoader: no two workers draw the same."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fastcl import views


class OneImage(Dataset):
    """The same image again and again, so that only chance tells the views apart."""

    def __init__(self, module):
        self.module = module
        self.image = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.module([self.image])[:, 0]


def epoch(loader):
    return torch.cat(list(loader))  # [8, 2, 3, 12, 12]


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("own", [False, True])
def test_workers_draw_unlike_views(context, own):
    generator = torch.Generator().manual_seed(3) if own else None
    data = OneImage(views.SimCLR(12, generator=generator))

    def loader():
        return DataLoader(
            data, batch_size=2, num_workers=2, multiprocessing_context=context,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    first = loader()
    found = torch.cat([epoch(first), epoch(first)])
    assert len(found.flatten(0, 1).flatten(1).unique(dim=0)) == 32, "all views differ"
    assert torch.equal(found[:8], epoch(loader())), "the seed of the loader decides"


class Pixels(Dataset):
    def __init__(self):
        self.images = torch.randint(0, 256, (8, 3, 20, 24), dtype=torch.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index


def test_a_collated_batch_in_the_main_process():
    module = views.SimCLR(12)
    for batch, index in DataLoader(Pixels(), batch_size=4, num_workers=1):
        assert module(batch).shape == (2, 4, 3, 12, 12) and len(index) == 4
