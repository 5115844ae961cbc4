"""The contrasts under every loss: the problem, what checks it, and its autograd nodes.

`problem` is the record, `node` the softmax contrast, `sigmoid` the logistic one; `gradients` is
what their nodes share. The losses in `functional` are one problem each.
"""
