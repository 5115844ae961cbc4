"""A recommender of two towers: `python examples/recommender.py [--plot FILE]`.

The items of a batch are the candidates of every user in it, so items that are bought often are
candidates too often: `column_bias` takes the log of how often off their scores (logQ). An item
that stands in the batch for two users is no negative of itself: equal labels make both positives.

Source: Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations", equations 3 and 4. The purchases are drawn here: users buy what is near to their
taste, and popular items far more often.
"""

import argparse

import torch
from torch import Tensor, nn

from fastcl.functional import contrast

USERS, ITEMS, TASTE, SEEN, BATCH = 4000, 2000, 8, 12, 512


def draw_purchases() -> tuple[Tensor, Tensor]:
    """Items that every user has bought, `[USERS, SEEN + 1]`, the last of them held out, and the
    chance of every item, `[ITEMS]`."""
    taste, kind = torch.randn(USERS, TASTE), torch.randn(ITEMS, TASTE)
    popular = -0.8 * torch.log(torch.randperm(ITEMS) + 1.0)  # Zipf's law
    chance = (2 * taste @ kind.T / TASTE**0.5 + popular).softmax(1)
    bought = torch.multinomial(chance, SEEN + 1)
    counts = torch.bincount(bought[:, :SEEN].flatten(), minlength=ITEMS) + 1.0
    return bought, counts / counts.sum()


class Towers(nn.Module):
    """Users as the mean of what they have bought, items by themselves."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.history, self.item = nn.Embedding(ITEMS, width), nn.Embedding(ITEMS, width)
        self.user = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, width))

    def users(self, bought: Tensor) -> Tensor:  # [b, k] -> [b, width]
        return self.user(self.history(bought).mean(1))


@torch.no_grad()
def score(towers: Towers, past: Tensor) -> Tensor:
    """Of every user with every item, `[b, ITEMS]`."""
    q, c = (nn.functional.normalize(z) for z in (towers.users(past), towers.item.weight))
    return q @ c.T


def recall(scores: Tensor, bought: Tensor, k: int = 50) -> float:
    """How often the item that is held out is among the first k of those not yet bought."""
    past, held = bought[:, :SEEN], bought[:, SEEN:]
    scores = scores.scatter(1, past, -torch.inf)
    return (scores.topk(k).indices == held).any(1).float().mean().item()


def train(
    towers: Towers, bought: Tensor, chance: Tensor, steps: int, corrected: bool
) -> list[float]:
    """Each step hides one purchase of some users and asks for it. The recall on the way."""
    optimizer, found = torch.optim.Adam(towers.parameters(), lr=1e-2), []
    for step in range(steps):
        if step % 25 == 0:
            found.append(recall(score(towers, bought[:, :SEEN]), bought))
        rows = bought[torch.randperm(USERS)[:BATCH], :SEEN]
        hidden = torch.randint(SEEN, (BATCH, 1))
        item = rows.gather(1, hidden)[:, 0]
        others = torch.arange(SEEN) != hidden
        loss = contrast(
            towers.users(rows[others].view(BATCH, SEEN - 1)), towers.item(item), temperature=0.1,
            labels=(item, item), column_bias=-chance[item].log() if corrected else None,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:3}: loss {loss.item():.4f}", flush=True)
    return [*found, recall(score(towers, bought[:, :SEEN]), bought)]


def plot(path: str, curves: dict[str, list[float]], popular: float) -> None:
    """The recall of both trainings over their steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for name, found in curves.items():
        axes.plot([25 * i for i in range(len(found))], found, label=name)
    axes.axhline(popular, color="grey", linestyle=":", label="most popular items")
    axes.set(xlabel="step", ylabel="recall@50")
    axes.legend()
    figure.savefig(path, dpi=90)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--plot", metavar="FILE", help="picture of the curves; needs matplotlib")
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    bought, chance = draw_purchases()
    popular, curves = recall(chance.repeat(USERS, 1), bought), {}
    for name, corrected in (("plain", False), ("with logQ", True)):
        torch.manual_seed(1)
        curves[name] = train(Towers(), bought, chance, asked.steps, corrected)
    plain, corrected = (found[-1] for found in curves.values())
    print(f"recall@50 {popular:.3f} by popularity, {plain:.3f} plain, {corrected:.3f} with logQ")
    if asked.plot:
        plot(asked.plot, curves, popular)
    assert corrected > max(plain, curves["with logQ"][0])
    return {"before": plain, "after": corrected}


if __name__ == "__main__":
    main()
