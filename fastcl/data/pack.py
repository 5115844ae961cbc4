"""Any source as tar shards in webdataset's layout, for disks that are slow with many files."""

import hashlib
import io
import json
import os
import tarfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from .. import _check
from .._files import replace_file
from .decoding import REMEDY, BadImage
from .folder import Tell
from .opening import open_images
from .order import permutation
from .shards import MANIFEST, sample_count
from .shrink import Encoding
from .source import Source, digest

FORMAT = 1
BAD = "bad_images.txt"


def pack(
    data: str | Path,
    out: str | Path,
    *,
    shorter_side: int | None = None,
    quality: int | None = None,
    per_shard: int = 4096,
    seed: int = 0,
    bad: str = "error",
    tell: Tell = lambda text: None,
) -> dict[str, int]:
    """Write shards that webdataset and `fastcl.data` read, their images in one shuffled order.

    Called again with the same arguments it checks the shards that are there, by size, checksum and
    number of samples, and writes those that are missing or damaged.

    Args:
        data: What `open_images` takes.
        out: Folder of `train-000000.tar` and so on, `test-...` where images are held out, and
            `fastcl.json` with every shard's facts and the names of the classes.
        shorter_side: Larger images are resized so, in pixels; None leaves all sizes.
        quality: Of JPEG, 1 to 95: every image is encoded anew. None encodes only what is resized,
            with 90, and keeps other files as they are.
        per_shard: Images of a shard.
        seed: Of the order.
        bad: "error" raises for the first image that cannot be read, "skip" leaves it out and names
            it in bad_images.txt. Files that stay as they are are not decoded.
        tell: Called with a line for every shard.

    Returns:
        Images of each split.

    Raises:
        FileNotFoundError: No such data.
        ValueError: A number out of range, or a folder with something else in it.
        BadImage: An image that cannot be read.
    """
    for name, value in (("shorter_side", shorter_side), ("quality", quality)):
        if value is not None:
            _check.count(name, value)
    if quality is not None and quality > 95:
        raise ValueError(f"quality must be from 1 to 95, got {quality}")
    _check.count("per_shard", per_shard)
    _check.one_of("bad", bad, ("error", "skip"))
    sources, out = open_images(data, tell), Path(out)
    permutations = {name: permutation(len(x), seed, 0) for name, x in sources.items()}
    asked = {
        "format": FORMAT, "shorter_side": shorter_side, "quality": quality,
        "per_shard": per_shard, "seed": seed,
        "source": digest(*(x.fingerprint() for x in sources.values())),
        "classes": list(sources["train"].classes),
    }  # fmt: skip
    done = _begun(out, asked)
    if bad == "error":  # shards that another call left them out of
        for said in (text for shard in done.values() for text in shard["bad"]):
            raise BadImage(f"{said}{REMEDY}")
    counts = dict.fromkeys(sources, 0)
    for split, source in sources.items():
        total = -(-len(source) // per_shard)
        for k in range(total):
            name = f"{split}-{k:06}.tar"
            if not _whole(out / name, done.get(name)):
                rows = permutations[split][k * per_shard : (k + 1) * per_shard]
                done[name] = _write(out / name, source, rows, k * per_shard,
                                    Encoding(shorter_side, quality), bad == "skip")  # fmt: skip
                if not _whole(out / name, done[name]):
                    raise OSError(f"{str(out / name)!r} is read other than it was written")
                _note(out, asked, done)
                tell(f"{name}: {done[name]['count']:,} images, shard {k + 1} of {total}")
            counts[split] += done[name]["count"]
    _name_bad(out, [text for shard in done.values() for text in shard["bad"]])
    return counts


def _begun(out: Path, asked: dict) -> dict[str, dict]:
    """The shards that are there already, by what the folder says."""
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob("*.tmp"):  # of a process that was killed
        left.unlink()
    if not (out / MANIFEST).exists():
        if others := sorted(path.name for path in out.iterdir() if path.name[0] != "."):
            raise ValueError(f"{str(out)!r} must be empty or a pack, it holds {others[0]!r}")
        _note(out, asked, {})
        return {}
    try:
        found = json.loads((out / MANIFEST).read_text())
        done = found.pop("shards")
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{str(out / MANIFEST)!r} is damaged: {error}") from None
    if differences := [f"{k} {found.get(k)} there, {asked[k]} now" for k in asked
                       if k not in ("source", "classes") and found.get(k) != asked[k]]:  # fmt: skip
        raise ValueError(f"{str(out)!r} is another pack: {'; '.join(differences)}")
    if found.get("source") != asked["source"] or found.get("classes") != asked["classes"]:
        raise ValueError(f"{str(out)!r} is a pack of other images")
    return done


def _note(out: Path, asked: dict, done: dict[str, dict]) -> None:
    text = json.dumps(asked | {"shards": done}, indent=1)
    replace_file(out / MANIFEST, lambda file: file.write(text.encode()))


def _whole(path: Path, facts: dict | None) -> bool:
    """Whether a shard is as it was written."""
    if facts is None or not path.is_file() or path.stat().st_size != facts["bytes"]:
        return False
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
            return False
    return sample_count(path) == facts["count"]


class _Hashed:
    """A file whose bytes are counted and summed up while they are written."""

    def __init__(self, file) -> None:
        self.file, self.sum, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        self.size += len(data)
        return self.file.write(data)


def _write(
    path: Path,
    source: Source,
    rows,
    first: int,
    encoding: Encoding,
    skip: bool,  # rows: int64 [k]
) -> dict:
    """One shard, which is there as a whole or not at all; its facts."""
    facts: dict = {"count": 0, "bad": []}

    def fill(file) -> None:
        hashed = _Hashed(file)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
            for place, i, found in _encoded(source, rows, encoding):
                try:
                    data, kind = found.result()
                except BadImage as error:
                    if not skip:
                        raise BadImage(f"{error}{REMEDY}") from None
                    facts["bad"].append(str(error))
                    continue
                _add(archive, f"{first + place:09}.{kind}", data)
                if source.labels is not None and source.labels[i] >= 0:
                    _add(archive, f"{first + place:09}.cls", str(int(source.labels[i])).encode())
                facts["count"] += 1
        facts.update(bytes=hashed.size, sha256=hashed.sum.hexdigest())

    replace_file(path, fill)
    return facts


def _encoded(source: Source, rows, encoding: Encoding) -> Iterator[tuple[int, int, Future]]:
    """The images of a shard in their order, some of them read ahead on all cores."""
    ahead = 4 * len(os.sched_getaffinity(0))
    waiting: deque = deque()
    with ThreadPoolExecutor() as pool:
        try:
            for place, i in enumerate(rows.tolist()):
                waiting.append((place, i, pool.submit(encoding.file_of, source, i)))
                if len(waiting) > ahead:
                    yield waiting.popleft()
            yield from waiting
        finally:
            pool.shutdown(cancel_futures=True)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _name_bad(out: Path, said: list[str]) -> None:
    if said:
        text = "".join(f"{line}\n" for line in sorted(said))
        replace_file(out / BAD, lambda file: file.write(text.encode(errors="surrogateescape")))
