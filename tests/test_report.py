"""`fastcl evaluate` from a run folder to the table and a report that stands alone."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
import torch

for _name in (
    "rich",
    "typer",
    "lightning_fabric",
    "sklearn",
    "safetensors",
    "matplotlib",
):
    pytest.importorskip(_name)

from typer.testing import CliRunner  # noqa: E402

from fastcl.commands import app as commands  # noqa: E402
from fastcl.evaluate import page, plot  # noqa: E402
from fastcl.evaluate.measure import Choices, Metric  # noqa: E402
from fastcl.evaluate.session import evaluate_run, read_history  # noqa: E402

runner = CliRunner()
PICTURES = ("curves", "embedding", "retrieval", "maps", "spectra")
VOID = {"meta", "link", "img", "br", "hr", "input"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run on 150 digits."""
    folder = tmp_path_factory.mktemp("runs") / "<tiny> & run"
    arguments = ["--method", "simclr", "--epochs", "2", "--limit", "150", "--batch-size", "64"]
    result = runner.invoke(
        commands.app, ["pretrain", *arguments, "--devices", "1", "--out", str(folder)]
    )
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    """Its evaluation in another folder, and what it printed."""
    out = tmp_path_factory.mktemp("out")
    arguments = ["--fractions", "0.1", "--finetune-steps", "3", "--knn-k", "7", "--temperature",
                 "0.1", "--retrieval-k", "5", "--embedding", "tsne"]  # fmt: skip
    result = runner.invoke(commands.app, ["evaluate", str(run), *arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out, result.output


class Reader(HTMLParser):
    """Checks that elements close in order; keeps tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)


def test_run_keeps_its_limit_and_the_health_of_the_embedding(run):
    assert json.loads((run / "config.json").read_text())["limit"] == 150
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert 0 < float(row["spread"]) <= 1 and 1 < float(row["effective_rank"]) <= 127


def test_table_has_every_figure(evaluated):
    out, text = evaluated
    names = ["7-NN accuracy", "linear probe, all", "linear probe, 5", "retrieval precision@5",
             "retrieval recall@5", "retrieval hit rate@5", "fine-tuned, 10 %", "alignment",
             "uniformity", "effective rank", "spread"]  # fmt: skip
    for name in names:
        assert name in text
    assert "neighbours of raw pixels" in text, "progress"
    assert f"report: {out}" in text.replace("\n", "")


def test_json_has_the_figures_and_their_protocols(evaluated):
    out, _ = evaluated
    found = json.loads((out / "evaluation.json").read_text())
    assert found["choices"]["knn_k"] == 7 and found["choices"]["fractions"] == [0.1]
    metrics = {m["name"]: m for m in found["metrics"]}
    assert len(metrics) == 11
    knn = metrics["7-NN accuracy"]
    assert "exp(cosine / 0.1)" in knn["protocol"] and "150 training and 150 test" in knn["protocol"]
    assert set(knn["values"]) == {"raw pixels", "untrained backbone", "trained backbone"}
    assert all(0 <= v <= 1 for v in knn["values"].values())
    assert set(metrics["alignment"]["values"]) == {"untrained backbone", "trained backbone"}
    assert found["collapse"]["verdict"] == "healthy"


def test_figures_are_those_of_the_functions(run, evaluated):
    from fastcl.evaluate import effective_rank, extract, knn_predict, uniformity
    from fastcl.evaluate.report import load_run

    _, backbone, images = load_run(run)
    train, test = (extract(backbone, x, images.statistics()) for x in (images.train, images.test))
    votes = knn_predict(test, train, images.train_labels, k=7, temperature=0.1)
    found = json.loads((evaluated[0] / "evaluation.json").read_text())["metrics"]
    values = {m["name"]: m["values"]["trained backbone"] for m in found}
    assert values["7-NN accuracy"] == (votes == images.test_labels).double().mean().item()
    assert values["uniformity"] == pytest.approx(uniformity(test))
    centred = effective_rank(torch.nn.functional.normalize(test, dim=1), center=True)
    assert values["effective rank"] == pytest.approx(centred), "as in training"


def test_report_parses_and_stands_alone(run, evaluated):
    out, _ = evaluated
    text = (out / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open, "every element is closed"
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert reader.tags.count("svg") == len(PICTURES)
    for tag, name, value in reader.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            assert value.startswith(("data:image/png;base64,", "#")), f"{tag} {name} {value[:60]}"
    assert "http" not in re.sub(r"base64,[\w+/=\s]+", "", text)
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text) and "@import" not in text
    assert "prefers-color-scheme: dark" in text and page.INK not in text
    written = " ".join(reader.text)
    for metric in json.loads((out / "evaluation.json").read_text())["metrics"]:
        shown = Metric(metric["name"], "", metric["values"], metric["percent"])
        assert metric["name"] in written and metric["protocol"] in written
        for features in metric["values"]:
            assert shown.text(features) in written
    for setting in ("learning rate", "temperature", "simclr", run.name):
        assert setting in written


def test_pictures_are_left_beside_the_report(evaluated):
    out, _ = evaluated
    for name in PICTURES:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_is_measured_on_other_data(run, tmp_path):
    """Which its backbone sees by the numbers of its own."""
    import numpy as np

    from fastcl.evaluate.report import load_run

    bright = np.random.default_rng(0).integers(200, 256, (80, 8, 8), dtype=np.uint8)
    labels = np.arange(80) % 2
    bright[labels == 1, :4] -= 200  # dark above
    np.savez(tmp_path / "other.npz", images=bright, labels=labels)
    arguments = ["evaluate", str(run), "--data", str(tmp_path / "other.npz"), "--fractions", ""]
    result = runner.invoke(commands.app, [*arguments, "--embedding", "tsne"])
    assert result.exit_code == 0, result.output
    assert (run / "on-other.npz" / "report.html").exists() and "other.npz" in result.output
    found = json.loads((run / "on-other.npz" / "evaluation.json").read_text())
    (knn,) = (m for m in found["metrics"] if "NN" in m["name"])
    assert len(knn["values"]) == 3 and all(x == 1.0 for x in knn["values"].values())
    _, _, own = load_run(run)
    _, _, other = load_run(run, data=str(tmp_path / "other.npz"))
    for a, b in zip(own.statistics(), other.statistics(), strict=True):
        torch.testing.assert_close(a, b)
    assert other.with_labels().draw(20).statistics() is other.seen_by
    np.savez(tmp_path / "large.npz", images=np.zeros((9, 9, 9), np.uint8), labels=labels[:9])
    with pytest.raises(ValueError, match="of 1 channels and 8 pixels as those of the run, .* 9"):
        load_run(run, data=str(tmp_path / "large.npz"))


@pytest.mark.slow
def test_run_without_labels(tmp_path):
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", images=pixels)
    folder = tmp_path / "run"
    done = runner.invoke(commands.app, ["pretrain", "--data", str(tmp_path / "plain.npz"),
                         "--epochs", "1", "--devices", "1", "--out", str(folder)])  # fmt: skip
    assert done.exit_code == 0, done.output
    found = evaluate_run(folder, Choices(embedding="tsne"), device="cpu")
    assert [m.name for m in found.metrics] == [
        "alignment", "uniformity", "effective rank", "spread",
    ]  # fmt: skip
    assert "no labels" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fractions", "0.1,x"], "fractions must be numbers between commas, got '0.1,x'"),
        (["--fractions", "2"], "fractions must be above 0 and at most 1, got 2.0"),
        (["--temperature", "0"], "temperature must be finite and above 0"),
        (["--knn-k", "0"], "Invalid value for '--knn-k'"),
    ],
)
def test_bad_choices_get_one_clear_message(run, arguments, message):
    result = runner.invoke(commands.app, ["evaluate", str(run), *arguments])
    assert result.exit_code != 0 and message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_umap_is_taken_where_it_is_and_named_where_not(monkeypatch):
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    assert plot.plane_method("auto") == "tsne"
    with pytest.raises(ImportError, match="pip install umap-learn"):
        plot.plane_method("umap")
    monkeypatch.setattr(plot, "find_spec", lambda name: name)
    assert plot.plane_method("auto") == "umap" and plot.plane_method("tsne") == "tsne"
    with pytest.raises(ValueError, match="embedding must be auto, tsne or umap, got 'pca'"):
        plot.plane_method("pca")


def test_text_of_the_page_is_escaped():
    hostile = '<img src="x">&'
    text = page.render(page.Page(hostile, hostile, [(hostile, hostile, "")], [hostile],
                       [(hostile, [hostile], 0, hostile)], [(hostile, [hostile, [hostile]], None)],
                       [(hostile, hostile)]))  # fmt: skip
    assert "<img" not in text and text.count("&lt;img src=&quot;x&quot;&gt;&amp;") == 14


def test_old_histories_have_no_columns_of_health(tmp_path):
    assert read_history(tmp_path) == []
    (tmp_path / "metrics.csv").write_text("epoch,step,learning_rate,loss,top1,spread\n1,2,0.1,3,4,")
    (row,) = read_history(tmp_path)
    assert row["loss"] == 3 and row["spread"] is None
    assert len(plot.curves([row]).axes) == 2


def test_metric_knows_the_best():
    values = {"a": 0.25, "b": 0.5}
    assert Metric("m", "", values).best == "b" and Metric("m", "", values).text("a") == "25.0%"
    lower = Metric("m", "", values, percent=False, better="lower")
    assert lower.best == "a" and lower.text("b") == "0.500" and lower.text("c") == "-"
    assert Metric("m", "", values, better="").best is None
    assert Metric("m", "", {"a": 0.5}).best is None


def test_contact_sheet_marks_what_differs():
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    near = torch.randint(0, 256, (2, 3, 1, 8, 8), dtype=torch.uint8)
    figure = plot.contact_sheet(images, near, ["cat", "dog"], [["cat", "cat", "dog"], ["dog"] * 3])
    frames = [patch.get_edgecolor() for patch in figure.axes[0].patches]
    assert len(frames) == 6 and len(set(frames)) == 2
    assert [frames.count(colour) for colour in dict.fromkeys(frames)] == [5, 1]
    assert len(figure.axes[0].images) == 8
    assert not plot.contact_sheet(images, near).axes[0].patches, "no labels, no frames"
