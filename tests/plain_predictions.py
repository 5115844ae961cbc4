"""Methods of prediction, of two modalities and of sentences in plain PyTorch."""

import math

import plain
import torch
from plain_methods import Plain


class CPC(Plain):
    """van den Oord et al. 2018, sequences."""

    def loss(self, sequence):
        z = self.nets.backbone(sequence)
        steps = len(self.nets.weight)
        t = int(torch.randint(z.shape[2] - steps, ()))
        _, last = self.nets.context(z[:, :, : t + 1].transpose(1, 2))
        future = torch.stack([z[:, :, t + k] for k in range(1, steps + 1)])
        return plain.cpc(future, last[0], self.nets.weight)


class ImageCPC(Plain):
    """van den Oord et al. 2018, images: patch by patch, pair of rows by pair of rows."""

    def loss(self, images):
        p, step, n = self.nets.patch, self.nets.patch // 2, len(images)
        places = range(0, images.shape[2] - p + 1, step)
        grid = [images[:, :, i : i + p, j : j + p] for i in places for j in places]
        side = len(places)
        rows = torch.stack(grid, 1).flatten(0, 1)
        z = self.nets.backbone(rows).view(n, side, side, -1)
        c = self.nets.context(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        losses = []
        for k, weight in enumerate(self.nets.weight, start=1):
            future, past = z[:, k:].reshape(-1, z.shape[3]), c[:, :-k].reshape(-1, c.shape[3])
            losses.append(plain.cpc(future[None], past, weight[None]))
        return sum(losses) / len(losses)


class DeepInfoMax(Plain):
    """Hjelm et al. 2019, local."""

    def loss(self, images):
        parts = self.nets.backbone[0](images)
        summary = self.nets.global_head(self.nets.backbone[1](parts))[:, :, None]
        local = self.nets.local_head(parts).flatten(2)
        return getattr(plain, f"dim_{self.name}")(local, summary)


class Texts(Plain):
    """CLIP and SigLIP."""

    def loss(self, images, texts):
        towers, scale = self.nets.towers, self.nets.logit_scale.exp()
        x, y = towers.image_head(towers.image(images)), towers.text_head(towers.text(texts))
        if hasattr(self.nets, "logit_bias"):
            return plain.siglip(x, y, scale, self.nets.logit_bias)
        return plain.clip(x, y, scale)

    def after(self) -> None:
        if not hasattr(self.nets, "logit_bias"):
            self.nets.logit_scale.data.clamp_(max=math.log(100))


class SimCSE(Plain):
    """Gao et al. 2021."""

    def loss(self, sentences, positives=None, hard=None):
        positives = sentences if positives is None else positives
        kinds = [x for x in (sentences, positives, hard) if x is not None]
        z = self.encode(torch.cat(kinds)).chunk(len(kinds))
        return plain.sim_cse(*z, temperature=0.1, hard_weight=0.5)


class ConSERT(Plain):
    """Yan et al. 2021, with feature cutoff and shuffling of every sentence by itself."""

    def loss(self, tokens, real):
        x = self.nets.embedding(tokens)
        kept = torch.rand(len(x), 1, x.shape[2]) >= 0.2
        key = torch.rand(len(x), x.shape[1])
        rows = []
        for row, k, words in zip(x, key, real.sum(1).tolist(), strict=True):
            order = torch.cat([k[:words].argsort(), torch.arange(words, len(k))])
            rows.append(row[order])
        z1, z2 = self.nets.backbone(x * kept, real), self.nets.backbone(torch.stack(rows), real)
        return plain.nt_xent(z1, z2, temperature=0.1)
