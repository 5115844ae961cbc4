"""GRACE on the nodes of a graph: `python examples/graph_nodes.py [--nodes N] [--plot FILE]`.

Two views of the graph, each without some edges and features. A node's other self is its positive;
all other nodes, of both views, are its negatives. The usual code forms the similarities of all
pairs, 20,000 x 20,000 floats for 10,000 nodes; `nt_xent` forms none of them, and no negative is
left out.

Source: Zhu et al. 2020, "Deep Graph Contrastive Representation Learning" (arXiv 2006.04131),
equation 1, whose mean over both views is NT-Xent. The graph is drawn here: blocks of nodes that
are linked among themselves more often, with features that say little of their block.
"""

import argparse
import resource

import torch
from torch import Tensor, nn

from fastcl.functional import nt_xent

CLASSES, WIDTH, DEGREE = 10, 64, 10


def draw_graph(nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges `[2, e]`, each once, features `[n, WIDTH]` and classes `[n]`."""
    label = torch.randint(CLASSES, (nodes,))
    members = [(label == c).nonzero()[:, 0] for c in range(CLASSES)]
    start = torch.arange(nodes).repeat(DEGREE // 2)
    end = torch.randint(nodes, start.shape)
    for c, own in enumerate(members):  # six of ten edges stay within the class
        inside = (label[start] == c) & (torch.rand(start.shape) < 0.55)
        end[inside] = own[torch.randint(len(own), (int(inside.sum()),))]
    centers = torch.randn(CLASSES, WIDTH)
    return torch.stack([start, end]), centers[label] + 4 * torch.randn(nodes, WIDTH), label


def adjacency(edges: Tensor, nodes: int) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 as a sparse matrix."""
    own = torch.arange(nodes).expand(2, -1)
    index = torch.cat([edges, edges.flip(0), own], 1)
    scale = torch.bincount(index[0], minlength=nodes).rsqrt()
    weight = scale[index[0]] * scale[index[1]]
    shape = nodes, nodes
    return torch.sparse_coo_tensor(index, weight, shape, check_invariants=False).coalesce()


class Encoder(nn.Module):
    """A graph convolution of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 64), nn.Linear(64, 32)

    def forward(self, a: Tensor, x: Tensor) -> Tensor:  # [n, n] sparse, [n, WIDTH] -> [n, 32]
        h = torch.sparse.mm(a, self.first(x)).relu()
        return torch.sparse.mm(a, self.second(h))


def view(edges: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Without a third of the edges and of the features."""
    kept = edges[:, torch.rand(edges.shape[1]) > 0.3]
    return adjacency(kept, len(x)), x * (torch.rand(x.shape[1]) > 0.3)


@torch.no_grad()
def accuracy(z: Tensor, label: Tensor) -> float:
    """Of a linear classifier by least squares from a tenth of the nodes, on the others."""
    z = nn.functional.normalize(z - z.mean(0), dim=1)
    z = torch.cat([z, torch.ones(len(z), 1)], 1)
    few = len(z) // 10
    known, targets = z[:few], nn.functional.one_hot(label[:few], CLASSES).float()
    ridge = known.T @ known + 1e-2 * torch.eye(z.shape[1])
    found = z[few:] @ torch.linalg.solve(ridge, known.T @ targets)
    return (found.argmax(1) == label[few:]).float().mean().item()


def plot(path: str, parts: dict[str, Tensor], label: Tensor) -> None:
    """Two principal directions of each matrix, 2,000 nodes coloured by their class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (title, z) in zip(figure.subplots(1, len(parts)), parts.items(), strict=True):
        z = nn.functional.normalize(z[:2000] - z[:2000].mean(0), dim=1)
        x, y = (z @ torch.linalg.svd(z, full_matrices=False).Vh[:2].T).T
        axes.scatter(x, y, s=3, c=label[:2000], cmap="tab10")
        axes.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=90)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--plot", metavar="FILE", help="picture of the nodes; needs matplotlib")
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    edges, x, label = draw_graph(asked.nodes)
    whole = adjacency(edges, asked.nodes)
    encoder = Encoder()
    head = nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 32))
    untrained = encoder(whole, x).detach()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-2)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for step in range(asked.steps):
        z0, z1 = (head(encoder(*view(edges, x))) for _ in "12")
        loss = nt_xent(z0, z1, temperature=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step:2}: loss {loss.item():.4f}", flush=True)
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
    trained = encoder(whole, x).detach()
    before, after = accuracy(untrained, label), accuracy(trained, label)
    print(f"accuracy {accuracy(x, label):.3f} of the features, {before:.3f} untrained, {after:.3f}")
    print(f"{used:.0f} MB for training; a matrix of all pairs: {16e-6 * asked.nodes**2:,.0f} MB")
    if asked.plot:
        plot(asked.plot, {"features": x, "untrained": untrained, "trained": trained}, label)
    assert after > before
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
