"""Sources: what is an image, in which order, with which label, from folders, shards and tables."""

import io
import json
import os
import tarfile

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from fastcl.data import BadImage, Folder, Part, decode, open_images  # noqa: E402
from fastcl.data.source import Names  # noqa: E402


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(level):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def draw(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(level))


def level(source, i):
    """The level of red that image i was drawn with."""
    found = source.read(i)
    return int(decode(found, "it")[0, 0, 0] if isinstance(found, bytes) else found[0, 0, 0])


# --- folders --------------------------------------------------------------------------------


def test_a_folder_of_any_nesting(tmp_path):
    names = ["cat/a.png", "cat/deep/er/b.JPG", "dog/c.webp", "dog/c.txt", "dog/.hidden.png",
             ".git/d.png", "__MACOSX/cat/e.png", "dog/._c.webp", "empty/readme.md"]  # fmt: skip
    for i, name in enumerate(names):
        draw(tmp_path / "set" / name, i)
    source = open_images(tmp_path / "set")["train"]
    assert source.classes == ("cat", "dog") and source.labels.tolist() == [0, 0, 1]
    assert [level(source, i) for i in range(3)] == [0, 1, 2]
    assert source.name(1) == repr(str(tmp_path / "set" / "cat/deep/er/b.JPG"))


def test_links_are_followed_and_loops_are_not(tmp_path):
    draw(tmp_path / "else" / "a.png", 7)
    draw(tmp_path / "set" / "cat" / "b.png", 8)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "else")
    (tmp_path / "set" / "cat" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "cat" / "self").symlink_to(".")
    (tmp_path / "set" / "cat" / "circle").symlink_to("circle")
    (tmp_path / "set" / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "set" / "cat" / "pipe.png")
    (tmp_path / "set" / "cat" / "to-pipe.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "set" / "dog" / "file.png").symlink_to(tmp_path / "set" / "cat" / "b.png")
    (tmp_path / "set" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = Folder(tmp_path / "set")
    assert [source.names[i] for i in range(4)] == [
        "cat/b.png", "dog/a.png", "dog/file.png", "dog/gone.png",
    ]  # fmt: skip
    assert [level(source, i) for i in range(3)] == [8, 7, 8]
    with pytest.raises(BadImage, match="gone.png' cannot be read: No such file"):
        source.read(3)


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("held_out", ["test", "val", "Valid", "VALIDATION", "dev", "Eval"])
def test_splits_in_any_case(tmp_path, train, held_out):
    draw(tmp_path / train / "cat" / "a.png", 1)
    draw(tmp_path / train / "dog" / "b.png", 2)
    draw(tmp_path / held_out / "dog" / "c.png", 3)
    found = open_images(tmp_path)
    assert set(found) == {"train", "test"} and level(found["test"], 0) == 3
    assert found["train"].classes == found["test"].classes == ("cat", "dog")
    assert found["train"].labels.tolist() == [0, 1] and found["test"].labels.tolist() == [1]


def test_the_held_out_split_with_labels_is_taken(tmp_path):
    draw(tmp_path / "train" / "cat" / "a.png")
    draw(tmp_path / "val" / "cow" / "a.png", 5)
    draw(tmp_path / "test" / "a.png", 6)
    (tmp_path / "dev").mkdir()
    (tmp_path / "notes").mkdir()
    found = open_images(tmp_path)
    assert level(found["test"], 0) == 5
    assert found["train"].classes == ("cat", "cow") and found["test"].labels.tolist() == [1]


@pytest.mark.parametrize("other", ["val", "annotations"])
def test_a_folder_without_images_beside_train_is_no_split_and_no_class(tmp_path, other):
    for i, name in enumerate("xxyy"):
        draw(tmp_path / "train" / name / f"{i}.png", i)
    (tmp_path / other).mkdir()
    (tmp_path / other / "boxes.json").write_text("{}")
    found = open_images(tmp_path)
    assert list(found) == ["train"] and found["train"].classes == ("x", "y")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train", "car"):
        draw(tmp_path / name / "a.png")
    assert open_images(tmp_path)["train"].classes == ("bus", "car", "train")


def test_fingerprints_tell_names_sizes_and_order(tmp_path):
    draw(tmp_path / "a.png", 1)
    draw(tmp_path / "b.png", 1)
    first = Folder(tmp_path)
    assert first.fingerprint() == Folder(tmp_path).fingerprint()
    part = [Part(first, np.array(index)).fingerprint() for index in ([0, 1], [1, 0], [0])]
    assert len({first.fingerprint(), *part}) == 4
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    second = Folder(tmp_path).fingerprint()
    (tmp_path / "c.png").write_bytes(png(1) + b" ")
    assert len({first.fingerprint(), second, Folder(tmp_path).fingerprint()}) == 3


def test_names_may_be_any_bytes():
    names = ["a", "", "ä/日本.png", os.fsdecode(b"\xff\xfe.png")]
    found = Names(names)
    assert [found[i] for i in range(4)] == names and len(found) == 4


# --- shards ---------------------------------------------------------------------------------


def write_tar(path, files, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def samples(start, count, label=str):
    files = []
    for i in range(start, start + count):
        files += [(f"d/s{i:04}.cls", label(i % 3).encode()), (f"d/s{i:04}.png", png(i)),
                  (f"d/s{i:04}.txt", b"words")]  # fmt: skip
    return files


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_are_read_in_place(tmp_path, format):
    write_tar(tmp_path / "set" / "a-0.tar", samples(0, 5), format=format)
    long = [(f"{'long' * 30}/x.y.jpg", png(9)), (f"{'long' * 30}/no.txt", b"no image")]
    write_tar(tmp_path / "set" / "a-1.tar", samples(5, 2) + long, format=format)
    for _ in range(2):  # the second time from the cache of the index
        source = open_images(tmp_path / "set")["train"]
        assert [level(source, i) for i in range(len(source))] == [0, 1, 2, 3, 4, 5, 6, 9]
        assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, -1] and source.classes == ()
    assert source.name(5).endswith("a-1.tar:d/s0005.png'")
    assert len(open_images(tmp_path / "set" / "a-0.tar")["train"]) == 5


def test_splits_and_names_of_classes_in_shards(tmp_path):
    names = "cat", "dog", "eel"
    write_tar(tmp_path / "im-train-0.tar", samples(0, 4, lambda i: names[i]))
    write_tar(tmp_path / "im-val-0.tar", samples(7, 2, lambda i: names[i]))
    found = open_images(tmp_path)
    assert found["train"].classes == found["test"].classes == names
    assert found["test"].labels.tolist() == [1, 2] and level(found["test"], 0) == 7
    files = [("a.json", json.dumps({"label": 4}).encode()), ("a.png", png(0)),
             ("b.png", png(0)), ("b.json", b"{broken")]  # fmt: skip
    write_tar(tmp_path / "j" / "x.tar", files)
    assert open_images(tmp_path / "j")["train"].labels.tolist() == [4, -1]


def test_damaged_shards_are_named(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, samples(0, 5))
    whole = path.read_bytes()
    for cut in (100, 512 * 3 + 20, 512 * 9):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="a.tar' is (no readable tar|cut off)"):
            open_images(path)
    write_tar(path, [("a.txt", b"text")])
    with pytest.raises(ValueError, match="a.tar' and its like hold no image"):
        open_images(path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(ValueError, match="no readable tar file.*: it is compressed"):
        open_images(path)


def test_a_shard_that_shrinks_under_a_run_gives_bad_images(tmp_path):
    write_tar(tmp_path / "a.tar", samples(0, 5))
    source = open_images(tmp_path / "a.tar")["train"]
    with open(tmp_path / "a.tar", "r+b") as file:
        file.truncate(3000)
    with pytest.raises(BadImage, match="a.tar:d/s0004.png' cannot be read: its shard"):
        source.read(4)


def test_shards_of_webdataset_itself(tmp_path):
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(str(tmp_path / "w-%03d.tar"), maxcount=3, verbose=0) as writer:
        for i in range(7):
            writer.write({"__key__": f"k{i}", "png": png(i), "cls": i % 2})
    source = open_images(tmp_path)["train"]
    assert [level(source, i) for i in range(7)] == list(range(7))
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


# --- datasets of Hugging Face ---------------------------------------------------------------


def hub_dataset(count, start=0):
    datasets = pytest.importorskip("datasets")
    kinds = {"pic": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])}
    rows = {
        "pic": [{"bytes": png(i), "path": None} for i in range(start, start + count)],
        "kind": [None if i == 3 else i % 2 for i in range(start, start + count)],
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


def test_saved_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    hub_dataset(5).save_to_disk(str(tmp_path / "one"))
    source = open_images(tmp_path / "one")["train"]
    assert [level(source, i) for i in range(5)] == list(range(5))
    assert source.classes == ("cat", "dog") and source.labels.tolist() == [0, 1, 0, -1, 0]
    both = datasets.DatasetDict({"train": hub_dataset(4), "validation": hub_dataset(2, 8)})
    both.save_to_disk(str(tmp_path / "both"))
    found = open_images(tmp_path / "both")
    assert len(found["train"]) == 4 and level(found["test"], 1) == 9


def test_labels_that_are_words_and_labels_that_are_kept_back(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [{"bytes": png(i), "path": None} for i in range(4)]
    columns = {"image": pictures, "label": ["dog", "cat", None, "dog"]}
    kinds = {"image": datasets.Image(), "label": datasets.Value("string")}
    words = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    words.save_to_disk(str(tmp_path / "words"))
    source = open_images(tmp_path / "words")["train"]
    assert source.classes == ("cat", "dog") and source.labels.tolist() == [1, 0, -1, 1]
    secret = hub_dataset(2, 4).map(lambda row: {"kind": -1})
    both = {"train": hub_dataset(2), "test": secret, "validation": hub_dataset(2, 8)}
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "both"))
    assert level(open_images(tmp_path / "both")["test"], 0) == 8


def test_parquet_files(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    (tmp_path / "set").mkdir()
    hub_dataset(4).to_parquet(str(tmp_path / "set" / "train-00000-of-00002.parquet"))
    hub_dataset(3, 4).to_parquet(str(tmp_path / "set" / "train-00001-of-00002.parquet"))
    hub_dataset(2, 8).to_parquet(str(tmp_path / "set" / "test-00000-of-00001.parquet"))
    found = open_images(tmp_path / "set")
    assert [level(found["train"], i) for i in range(7)] == list(range(7))
    assert [level(found["test"], i) for i in range(2)] == [8, 9]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(ValueError, match="bad.parquet' is no readable dataset"):
        open_images(tmp_path / "bad.parquet")
    datasets.Dataset.from_dict({"a": [1, 2]}).save_to_disk(str(tmp_path / "words"))
    with pytest.raises(ValueError, match=r"must have one column of images; its.*a \(int64\)"):
        open_images(tmp_path / "words")
