"""Random views beside other libraries and beside decoding: `python -m benchmarks.views`.

fastcl takes files by `load`, which decodes what the views of an image show and makes them while it
is in cache, as a training loop would, into memory of a batch that was let go; beside it stand files
that are decoded whole, files of a camera, a module for every batch, whose memory is new, and
`decode` of all files before their views. Batches are of 24, beside them one of 256. Operations,
forms of the output and presets follow alone.
Processor time of one thread, all variants of a case in turn in one run; a library that is not
installed is left out by name. Photographs are 24 windows of 500 x 375 out of scikit-learn's two,
as JPEG of quality 90, 55 KB on average; or those of a folder, `--photographs FOLDER`. Rows go to
results/views.csv in the place of what the same machine had measured before, a table to
results/views.md and docs/results.md.
"""

import argparse
import statistics
import struct
import time
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

import fastcl.functional as F
from fastcl import views
from fastcl.data import decoding
from fastcl.functional.packed import Packed

from . import report, view_peers, view_stages, view_table
from .memory import growth

WIDTH, HEIGHT, QUALITY = 500, 375, 90
SMALL, BATCH = 32, 512
MANY = 256  # a batch whose views, 308 MB, stay in no cache
DECODING = "simplejpeg, decoding alone"
COLUMNS = (
    "case", "variant", "version", "us", "q20_us", "q80_us", "samples", "clock", "of_decoding",
    "extra_mb", "note",
)  # fmt: skip


class Variant:
    """A call on so many images, and whose it is."""

    def __init__(self, call: Callable[[], object], images: int = 1, version: str = "") -> None:
        self.call, self.images, self.version = call, images, version


def windows(folder: Path) -> list[np.ndarray]:
    """24 of 500 x 375 pixels, of the photographs in a folder."""
    from PIL import Image

    paths = sorted(x for x in folder.iterdir() if x.suffix.lower() in (".jpg", ".jpeg", ".png"))
    photographs = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    large = [x for x in photographs if x.shape[0] >= HEIGHT and x.shape[1] >= WIDTH]
    if not large:
        raise SystemExit(f"no photograph of {WIDTH} x {HEIGHT} pixels at least in {folder}")
    found, each = [], -(-24 // len(large))
    for x in large:
        for k in range(each):
            top = (x.shape[0] - HEIGHT) * (k % 3) // 2
            left = (x.shape[1] - WIDTH) * (k // 3) // max(1, (each - 1) // 3)
            found.append(np.ascontiguousarray(x[top : top + HEIGHT, left : left + WIDTH]))
    return found[:24]


def sample_photographs() -> Path:
    """scikit-learn's, wherever it is installed."""
    found = find_spec("sklearn")
    if found is None:
        raise SystemExit("views: needs scikit-learn's photographs or --photographs FOLDER")
    return Path(found.origin).parent / "datasets" / "images"


def peers(size: int, strength: float, blur: bool, sources: list, skipped: list[str]) -> dict:
    """Those that are installed, image after image."""
    found = {}
    for name, (package, build) in view_peers.PEERS.items():
        try:
            version, call = view_peers.installed(package), build(size, strength, blur)
        except ImportError as missing:
            skipped.append(f"{name}: {missing}")
            continue
        each = cycle(sources)
        found[name] = Variant(lambda call=call, each=each: call(next(each)), 1, version)
    return found


def boxes_by() -> str:
    """The library that decodes parts of files; nothing where none does."""
    return "" if decoding._jpeg is None else f"libjpeg-turbo {decoding._jpeg.VERSION}"


def loading(make: views.Views, jpegs: list[bytes]) -> dict[str, Variant]:
    """What views show of a file, and the whole."""

    def load():
        return make.load(jpegs, threads=1)

    def load_whole():
        kept, decoding._jpeg = decoding._jpeg, None
        try:
            return load()
        finally:
            decoding._jpeg = kept

    return {"fastcl": Variant(load, len(jpegs), boxes_by()),
            "fastcl, files decoded whole": Variant(load_whole, len(jpegs))}  # fmt: skip


def of_a_camera(jpeg: bytes, orientation: int) -> bytes:
    """The same with EXIF."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "camera", orientation
    segment = exif.tobytes()
    return jpeg[:2] + struct.pack(">HH", 0xFFE1, len(segment) + 2) + segment + jpeg[2:]


def photographs(jpegs: list[bytes], skipped: list[str]) -> dict[str, Variant]:
    """JPEG to two views of 224."""
    each, make = cycle(jpegs), views.SimCLR(224, strength=0.5)
    record, version = views.decode(jpegs, threads=1), view_peers.installed("simplejpeg")
    many = [file for file, _ in zip(cycle(jpegs), range(MANY), strict=False)]
    record_of_many = views.decode(many, threads=1)
    found = {
        DECODING: Variant(lambda: view_peers.decoded(next(each)), 1, version),
        **loading(make, jpegs),
        **{
            f"fastcl, {name} by EXIF": loading(make, [of_a_camera(x, k) for x in jpegs])["fastcl"]
            for name, k in (("upright", 1), ("turned", 6))
        },
        "fastcl, new memory": Variant(lambda: deepcopy(make).load(jpegs, threads=1), len(jpegs)),
        "fastcl, decoded to a record first": Variant(
            lambda: make(views.decode(jpegs, threads=1)), len(jpegs)
        ),
        "fastcl, views alone": Variant(lambda: make(record), len(jpegs)),
        f"fastcl, views alone, {MANY} images": Variant(lambda: make(record_of_many), MANY),
        f"fastcl, {MANY} images": Variant(lambda: make.load(many, threads=1), MANY),
        "fastcl, drawing alone": Variant(
            lambda: views.draw(make.recipes, record.sizes), len(jpegs)
        ),
        **peers(224, 0.5, True, jpegs, skipped),
    }
    try:
        version = view_peers.installed("nvidia-dali-cuda130")
        run = view_peers.dali(jpegs, 224, 0.5)
        found["DALI on the CPU, blur always"] = Variant(run, len(jpegs), version)
    except (ImportError, RuntimeError) as missing:
        skipped.append(f"DALI: {missing}")
    return found


def beside_decoding(jpegs: list[bytes], make: views.Views) -> dict[str, Variant]:
    each, version = cycle(jpegs), view_peers.installed("simplejpeg")
    alone = Variant(lambda: view_peers.decoded(next(each)), 1, version)
    return {DECODING: alone, **loading(make, jpegs)}


def small(images: list[np.ndarray], skipped: list[str]) -> dict[str, Variant]:
    """32 x 32 pixels in memory to two views, without blur."""
    tops = [k % (HEIGHT - SMALL) for k in range(0, 31 * BATCH, 31)]
    squares = [images[k % 24][top : top + SMALL, top : top + SMALL] for k, top in enumerate(tops)]
    squares = [np.ascontiguousarray(x) for x in squares]
    batch = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()
    make = views.SimCLR(SMALL, strength=0.5)
    found = {"fastcl": Variant(lambda: make(batch), BATCH)}
    try:
        version = view_peers.installed("kornia")
        call = view_peers.kornia(SMALL, 0.5, False)
        found["kornia, batches of 512"] = Variant(lambda: call(batch), BATCH, version)
    except ImportError as missing:
        skipped.append(f"kornia: {missing}")
    return found | peers(SMALL, 0.5, False, squares, skipped)


def interleaved(variants: dict[str, Variant], budget: float, clock) -> dict[str, list[float]]:
    """Seconds per image of every variant, in rounds that run each in turn: as in a loop that does
    nothing else, which a call before the clock starts makes of it."""
    times = {name: [] for name in variants}
    begin = time.perf_counter()
    while time.perf_counter() - begin < budget or len(times[next(iter(times))]) < 5:
        for name, variant in variants.items():
            repeats = max(1, 24 // variant.images)
            variant.call()
            start = clock()
            for _ in range(repeats):
                variant.call()
            times[name].append((clock() - start) / repeats / variant.images)
    return times


def rows(case: str, variants: dict[str, Variant], budget: float, clock=time.process_time) -> list:
    """A row per variant."""
    times = interleaved(variants, budget, clock)
    medians = {name: statistics.median(x) for name, x in times.items()}
    found = []
    for name, variant in variants.items():
        low, *_, high = statistics.quantiles(times[name], n=5)
        share = medians[name] / medians[DECODING] if DECODING in medians else ""
        found.append({
            "case": case, "variant": name, "version": variant.version,
            "us": medians[name] * 1e6, "q20_us": low * 1e6, "q80_us": high * 1e6,
            "samples": len(times[name]), "clock": clock.__name__, "of_decoding": share,
        })  # fmt: skip
        print(f"{case:32} {name:32} {medians[name] * 1e6:10.2f} us {share or 0:6.2f}", flush=True)
    return found


def threads(record: Packed, budget: float) -> list[dict]:
    """Wall time of the views alone, of one thread and of two, into new memory and into old."""
    make, found = views.SimCLR(224, strength=0.5), {}
    parameters = views.draw(make.recipes, record.sizes)
    memory = F.random_views(record, parameters, size=224)

    def of(count, out):
        def call():
            torch.set_num_threads(count)
            F.random_views(record, parameters, size=224, out=out)

        return Variant(call, len(record.sizes))

    for count in (1, 2):
        found[f"fastcl, {count} threads"] = of(count, None)
        found[f"fastcl, {count} threads, memory used again"] = of(count, memory)
    made = rows("two views of 224, wall", found, budget, time.perf_counter)
    torch.set_num_threads(1)
    return made


def extra_memory(image: torch.Tensor, batch: int) -> float:
    """MB above images and output at the peak of a call on a batch."""
    images = image.expand(batch, *image.shape).contiguous()
    make = views.SimCLR(224)
    make(images[:1])
    return (growth(lambda: make(images)) - 2 * batch * 3 * 224 * 224 * 4) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--budget", type=float, default=12, help="seconds per case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    where, skipped = report.circumstances("cpu"), []
    images = windows(arguments.photographs or sample_photographs())
    import simplejpeg

    jpegs = [simplejpeg.encode_jpeg(x, QUALITY, colorsubsampling="420") for x in images]
    note = f"{sum(map(len, jpegs)) / len(jpegs) / 1000:.1f} KB per JPEG"
    found = rows("JPEG to two views of 224", photographs(jpegs, skipped), arguments.budget)
    for case, make in (("JPEG to one view of 224", views.Supervised(224)),
                       ("JPEG to DINO's 2 + 8 crops", views.DINO(224, 96, 8))):  # fmt: skip
        found += rows(case, beside_decoding(jpegs, make), arguments.budget / 2)
    found += rows("32 x 32 to two views", small(images, skipped), arguments.budget)
    record = views.decode(jpegs)
    for case, calls in (("a view of 224 of 335 x 335", view_stages.operations(len(jpegs))),
                        ("views of 500 x 375", view_stages.presets(record))):  # fmt: skip
        made = {name: Variant(call, len(jpegs)) for name, call in calls.items()}
        found += rows(case, made, arguments.budget / 4)
    found += threads(record, arguments.budget / 2)
    image = torch.from_numpy(images[0]).permute(2, 0, 1)
    for batch in (16, 128):
        extra = extra_memory(image, batch)
        found.append({"case": "memory of a call", "variant": f"fastcl, {batch} images",
                      "extra_mb": extra})  # fmt: skip
        print(f"{batch} images: {extra:.1f} MB above the output")
    for row in found:
        row["note"] = note if "224" in row["case"] or "DINO" in row["case"] else ""
    print("left out:", *dict.fromkeys(skipped), sep="\n  ")
    path = report.RESULTS / "views.csv"
    kept = [row for row in report.read(path) if row["machine"] != where["machine"]] if (
        path.exists()) else []  # fmt: skip
    report.save(kept + [where | row for row in found], path, COLUMNS)
    view_table.show()


if __name__ == "__main__":
    main()
