"""Pretraining with a method of fastcl, from a plain command: `fastcl pretrain`."""
