"""Which tile every softmax contrast kernel uses, and when the gradient goes by chunks.

The one place to change after a measurement. Rows of the tables: the widest d they serve. Chosen
so that no configuration spills and so that sm_80 tiles also fit the 99 KB of sm_86 and sm_89.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

# Beyond, the own-row accumulator [rows, d] leaves the registers: weights by chunks, then products.
FLASH_WIDTH = 256
# Beyond, both gradients, and the one of z z^T, go by chunks: a tile of weights is formed once where
# own rows form it for dq and again for dk. That is a product and an exponential less, which costs
# one of width 128 itself, for 6 bytes of traffic per logit, most of it behind the products.
BOTH_WIDTH = 128
# Bytes of one chunk of weights: 8,192 rows and columns of bfloat16, where reading and writing
# float32 gradients costs at most a tenth of the products. Float32's are 4,096, and cost more.
CHUNK = 2**27
# Bytes of the exponentials kept for a chunk of rows, and the rows below which it does not pay to
# keep them: float32 gradients of the columns are read and written once per chunk.
KEPT = 2**28
LEAST_KEPT = 512
KEPT_STEP = 256  # rows of the largest tile
# Up to this scale no sum over unit rows falls below 2^-100: the fixed shift needs no repair.
SAFE_SCALE = 69.0
# Up to this scale both log-sum-exps of unit rows lie within 2^+-100 of the gradient's shift, 0.
NEAR_SCALE = 42.0
# Up to this scale the factor of kept exponentials, at most e^(2 scale - 42), is a float32 number.
KEPT_SCALE = 64.0
# Row tiles per launch where columns are summed too: bounds the partial sums to [128, m].
LAUNCH_TILES = 128
# The shortest sum of a product on tensor cores.
LEAST_DEPTH = 16
# Features of a guide in one step of its product: a line of shared memory of 16 bits, and of float32
# what the registers hold beside the rows' own product.
GUIDE_DEPTH = {2: 64, 4: 16}
# Columns of a tile whose rows and guide are not copied in bulk.
ADDRESSED = 64
# Column tiles of positives that one look at their ranges rules out.
SCAN = 32


class Tile(NamedTuple):
    """Block shape of one kernel, its warps and software pipeline."""

    rows: int
    columns: int
    depth: int  # features per product step; at least d: the rows stay in shared memory
    warps: int
    stages: int


class Plan(NamedTuple):
    """Everything that depends on the device, the dtype and the width."""

    sums: Tile  # forward: row and column sums
    own: Tile | None  # gradient of one block of rows in registers; None: by chunks
    frozen: Tile | None  # the same in the forward, columns without gradient
    weights: Tile  # one chunk of gradient weights
    bulk: bool  # tensor descriptors
    processors: int
    precision: str  # of float32 products


class Tiles(NamedTuple):
    """The tiles of one width."""

    sums: Tile
    own: Tile | None
    frozen: Tile | None
    weights: Tile


CHUNKED = Tile(128, 128, 64, 8, 3)
# Blocks of four warps: the epilogue of one hides behind the product of the other.
HOPPER = {
    64: Tiles(Tile(128, 64, 64, 4, 3), Tile(64, 64, 64, 4, 3), Tile(64, 128, 64, 4, 3), CHUNKED),
    128: Tiles(
        Tile(128, 64, 128, 4, 3), Tile(64, 64, 128, 4, 3), Tile(64, 128, 128, 4, 2), CHUNKED
    ),
    256: Tiles(
        Tile(128, 128, 256, 8, 2), Tile(128, 32, 256, 8, 2), Tile(64, 64, 256, 4, 2), CHUNKED
    ),
    # Wide rows leave no room for q beside two tiles of k: the larger tile reads less.
    None: Tiles(Tile(256, 128, 64, 8, 3), None, None, CHUNKED),
}
# Sums of products lie outside the registers of sm_100, and come into them a whole tile at a time.
BLACKWELL = {
    width: Tiles(*(t and t._replace(columns=t.columns // 2) for t in tiles))
    for width, tiles in HOPPER.items()
}
AMPERE = {
    64: Tiles(CHUNKED, Tile(64, 64, 64, 4, 3), Tile(64, 64, 64, 4, 3), CHUNKED),
    128: Tiles(CHUNKED, Tile(64, 64, 128, 4, 3), Tile(64, 64, 128, 4, 3), CHUNKED),
    256: Tiles(CHUNKED, Tile(64, 64, 256, 8, 2), Tile(64, 64, 256, 8, 2), CHUNKED),
    None: Tiles(CHUNKED, None, None, CHUNKED),
}
# IEEE float32 has no tensor cores: small tiles, and cuBLAS for the gradient's products.
_SINGLE = Tile(64, 64, 32, 8, 2)
SINGLE = Tiles(_SINGLE, None, None, _SINGLE._replace(columns=32))
_TENSOR_FLOAT = Tile(128, 128, 32, 8, 2)
TENSOR_FLOAT = Tiles(_TENSOR_FLOAT, None, None, _TENSOR_FLOAT._replace(columns=64))

POSITIVES = Tile(64, 64, 32, 8, 2)


def supported(q: Tensor) -> bool:
    """Whether these kernels run here, rather than the reference."""
    if q.dtype == torch.float64:
        return False
    return torch.cuda.get_device_properties(q.device).major >= 8


@functools.lru_cache(1024)
def tiles(major: int, d: int, itemsize: int, precision: str) -> Tiles:
    """The tiles of a compute capability, a width and a dtype."""
    if itemsize == 4:
        return SINGLE if precision == "ieee" else TENSOR_FLOAT
    # Consumer Blackwell (12.x) has the shared memory of sm_86.
    table = {9: HOPPER, 10: BLACKWELL}.get(major, AMPERE)
    width = next((w for w in table if w is not None and d <= w), None)
    if d > FLASH_WIDTH:
        width = None
    # A narrow row is padded to the least depth that a product takes.
    narrow = max(LEAST_DEPTH, 1 << (d - 1).bit_length())
    if narrow >= 64:
        return table[width]
    return Tiles(*(tile._replace(depth=narrow) for tile in table[width]))


def product_precision(dtype: torch.dtype) -> str:
    """How products of rows round, asked for in either of PyTorch's ways.

    The property knows them all: its own, that of all backends, set_float32_matmul_precision and
    allow_tf32. Reading the last one raises once one of the first two was used.
    """
    single = dtype == torch.float32
    return "tf32" if single and torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def plan(q: Tensor, k: Tensor) -> Plan:
    """Choose without touching the device: properties are cached by torch."""
    precision = product_precision(q.dtype)
    properties = torch.cuda.get_device_properties(q.device)
    chosen = tiles(properties.major, q.shape[1], q.element_size(), precision)
    # IEEE products read registers, and descriptors then spill.
    bulk = properties.major in (9, 10) and aligned(q, k) and q.element_size() == 2
    return Plan(*chosen, bulk, properties.multi_processor_count, precision)


def aligned(q: Tensor, k: Tensor) -> bool:
    """Whether the bulk copy engine takes rows and columns."""
    return len(k) > 0 and all(
        x.shape[1] * x.element_size() % 16 == 0 and x.data_ptr() % 16 == 0 for x in (q, k)
    )


def guided(chosen: Plan, q: Tensor, guide: Tensor) -> Plan:
    """The plan of tiles that form a guide's product too: two tiles of sums fill the registers that
    one did, and the gradient, by chunks, forms both once for dq and dk."""
    tile = chosen.weights
    if guide.element_size() > q.element_size():
        precision = product_precision(guide.dtype)
        tile = tiles(0, q.shape[1], guide.element_size(), precision).weights
    if guide.element_size() == 4:  # no next step is loaded beside this one's products
        tile = tile._replace(stages=1)
    if not (chosen.bulk and aligned(guide, guide)):  # addresses are registers too
        tile = tile._replace(columns=min(tile.columns, ADDRESSED))
    return chosen._replace(sums=tile, own=None, frozen=None, weights=tile)


def guide_depth(guide: Tensor) -> int:
    """Features of a step of the guide's product."""
    most = GUIDE_DEPTH[guide.element_size()]
    return min(most, max(LEAST_DEPTH, 1 << (guide.shape[1] - 1).bit_length()))


def chunk_size(itemsize: int) -> int:
    """Rows and columns of one chunk of weights: a power of two, and so a multiple of any tile."""
    return 1 << (math.isqrt(CHUNK // itemsize).bit_length() - 1)


def kept_rows(q: Tensor, k: Tensor) -> int:
    """Rows whose exponentials are kept, in as much memory as the rows and columns take, or KEPT."""
    kept = max(KEPT, (q.numel() + k.numel()) * q.element_size())
    rows = kept // (q.element_size() * k.shape[0])
    return rows // KEPT_STEP * KEPT_STEP


def keeps(
    q: Tensor, k: Tensor, scale: float, logit_scale, unit: bool, need_k: bool, guided: bool
) -> bool:
    """Whether a product less is worth 6 bytes per logit, and neither shift nor factor can fail.

    At widths whose gradient has its sums in registers, constant columns need no third product. A
    guide's gradient goes by chunks at every width.
    """
    if q.dtype != torch.bfloat16 or not (supported(q) and len(q) and len(k)):
        return False
    near = unit and logit_scale is None and scale <= KEPT_SCALE
    rows = min(len(q), LEAST_KEPT)
    wide = guided or q.shape[1] > (BOTH_WIDTH if need_k else FLASH_WIDTH)
    return near and wide and kept_rows(q, k) >= rows


def gradient_shift(scale: float) -> int:
    """`contrast_tile.gradient_shift` of a scale that is known here."""
    return math.floor(max(scale - NEAR_SCALE, 0.0) * math.log2(math.e))


def positives_tile(itemsize: int) -> Tile:
    """Half as many features of float32 rows: more of them are more registers than there are."""
    return POSITIVES._replace(depth=16) if itemsize == 4 else POSITIVES


def whole(tile: Tile, d: int) -> bool:
    return tile.depth >= d


def descriptor(x: Tensor, rows: int, depth: int, bulk: bool):
    """The tensor, or its descriptor for the bulk copy engine."""
    if not bulk:
        return x
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(x, list(x.shape), list(x.stride()), [rows, depth])


def slots(tile: Tile, processors: int) -> int:
    """Programs that run at once: 8 warps of 255 registers fill a multiprocessor."""
    return processors * max(1, 8 // tile.warps)


@functools.lru_cache(1024)
def strips(row_tiles: int, col_tiles: int, slots: int) -> tuple[int, int]:
    """Number of strips the columns are split into, and column tiles per strip; none is empty.

    As few as come within a twentieth of the shortest time: waves of programs times their length.
    Up to 140 us of Python, once for every shape.
    """
    col_tiles = max(col_tiles, 1)
    times = {}
    for count in range(1, min(col_tiles, max(8, slots // row_tiles)) + 1):
        length = -(-col_tiles // count)
        programs = row_tiles * -(-col_tiles // length)
        times.setdefault(length, -(-programs // slots) * length)
    shortest = min(times.values())
    length = max(length for length, time in times.items() if time <= 1.05 * shortest)
    return -(-col_tiles // length), length
