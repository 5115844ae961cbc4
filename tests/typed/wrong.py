"""What a type checker has to refuse: every line that ends in a code, and no other."""

import torch
from torch import nn

import fastcl
from fastcl import distributed, functional, losses, methods
from fastcl.compat import open_clip

z = torch.randn(4, 8)
functional.nt_xent(z)  # call-arg
functional.nt_xent(z, "z")  # arg-type
functional.nt_xent(z, z, 0.5)  # call-arg
functional.nt_xent(z, z, temperature="warm")  # arg-type
functional.info_nce(z, z, heat=0.1)  # call-arg
functional.contrast(z, z, both="yes")  # arg-type
functional.sup_con(z, labels=[0, 1, 0, 1])  # arg-type
functional.absent(z)  # attr-defined
distributed.clip(z, z, logit_scale=None)  # arg-type
losses.NTXentLoss(temperature="warm")  # arg-type
losses.NTXentLoss().forward(z)  # call-arg
methods.SimCLR(nn.Linear(8, 8), width="8")  # arg-type
fastcl.Queue(16)  # call-arg
fastcl.Queue(16, 8).push([1.0])  # arg-type
fastcl.Momentum(z)  # arg-type
loss: float = open_clip.ClipLoss().forward(z, z, 10.0, output_dict=True)  # assignment
