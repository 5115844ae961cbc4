"""Spearman correlation of sentence pairs, against scipy, and on STS-B."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from shared import SHARED

scipy_stats = pytest.importorskip("scipy.stats")

from fastcl.evaluate import (  # noqa: E402
    evaluate_sentences,
    read_pairs,
    similarity_spearman,
    spearman,
)

STSB = SHARED / "data" / "stsb" / "stsb-en-test.csv"


def plain_spearman(x, y):
    """Pearson of ranks that equals share, number by number."""

    def ranks(v):
        return torch.tensor([(v < a).sum() + ((v == a).sum() + 1) / 2 for a in v]).double()

    a, b = (ranks(v) - ranks(v).mean() for v in (x, y))
    return ((a * b).sum() / (a.norm() * b.norm())).item()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_spearman_with_ties(pairs):
    x, y = torch.tensor(pairs).double().T
    if x.std() == 0 or y.std() == 0:
        assert spearman(x, y) != spearman(x, y), "NaN where there is no rank"
        return
    assert spearman(x, y) == pytest.approx(plain_spearman(x, y), abs=1e-12)
    expected = scipy_stats.spearmanr(x.numpy(), y.numpy()).statistic
    assert spearman(x, y) == pytest.approx(expected, abs=1e-12)
    assert spearman(x.exp(), y) == pytest.approx(spearman(x, y)), "only the order counts"
    assert spearman(-x, y) == pytest.approx(-spearman(x, y))


def test_known_orders():
    x = torch.arange(9.0)
    assert spearman(x, x**3) == pytest.approx(1) and spearman(x, -x) == pytest.approx(-1)
    with pytest.raises(ValueError, match=r"vectors of one length, 2 or more, got \[9\] and \[8\]"):
        spearman(x, x[:8])


def test_similarity_is_the_cosine():
    first, second, score = torch.randn(40, 6), torch.randn(40, 6), torch.rand(40)
    cosines = (F.normalize(first.double(), dim=1) * F.normalize(second.double(), dim=1)).sum(1)
    expected = plain_spearman(cosines, score)
    assert similarity_spearman(first, 5 * second, score) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="second must have as many rows as first"):
        similarity_spearman(first, second[:3], score)


def letters(width=4096):
    """An encoder that counts groups of three letters, hashed."""
    from sklearn.feature_extraction.text import HashingVectorizer

    counts = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3), n_features=width, norm=None)
    return lambda sentences: torch.from_numpy(counts.transform(sentences).toarray()).float()


@pytest.mark.skipif(not STSB.exists(), reason="needs ../shared/data/stsb")
def test_stsb_test_split():
    pytest.importorskip("sklearn")
    pairs = read_pairs(STSB)
    assert len(pairs.first) == len(pairs.second) == len(pairs.score) == 1379
    assert pairs.score.min() >= 0 and pairs.score.max() <= 5
    found = evaluate_sentences(letters(), pairs)
    assert 0.5 < found < 0.8, "counts of letters know something of similarity, not all"
    assert found == pytest.approx(evaluate_sentences(letters(), pairs, batch_size=1000), abs=1e-9)
    generator = torch.Generator().manual_seed(0)
    noise = evaluate_sentences(lambda s: torch.randn(len(s), 8, generator=generator), pairs)
    assert abs(noise) < 0.1


def test_bad_lines_are_named(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('"a, b",c,1.5\nonly,two\n')
    with pytest.raises(ValueError, match="line 2 of .*must be sentence1,sentence2,score, got"):
        read_pairs(path)
    path.write_text('"a, b",c,1.5\n')
    assert read_pairs(path).first == ["a, b"]
