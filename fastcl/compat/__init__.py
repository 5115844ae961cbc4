"""The losses of other libraries under their own names: one import changes, the numbers do not.

`fastcl.compat.lightly`, `open_clip`, `pytorch_metric_learning`, `info_nce`, `supcontrast`,
`sentence_transformers` and `solo` hold the names of their libraries with the same signatures,
defaults, attributes and errors, over the contrasts of fastcl: memory is linear in the number of
rows. `fastcl.patch("lightly")` puts them into the installed library. docs/migration.md lists what
differs.
"""
