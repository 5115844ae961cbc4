"""A library that stands for CUDA's, so that torch's ARM build loads on a machine without a GPU.

    python cuda_stub.py TORCH_LIB COMPILER FOLDER

PyPI's wheels want CUDA, several gigabytes of which nothing is called here. So one library exports
every symbol of CUDA's that torch asks for, in its version, and lies in FOLDER under every name.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NEEDED = re.compile(r"\(NEEDED\).*\[(lib(?:cu|nccl|nvrtc|nvshmem).+)\]")
UNDEFINED = re.compile(r" GLOBAL +DEFAULT +UND (\w+)(?:@(\S+))?")
VERSION = re.compile(r"lib(cu|nvrtc)|NVSHMEM")
UNVERSIONED = re.compile(r"cu[A-Z]|cusparseLt|nccl")


def readelf(option: str, library: Path) -> str:
    command = ["readelf", "-W", option, library]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main(torch_lib: Path, compiler: str, folder: Path) -> None:
    names, versions, plain = set(), defaultdict(set), set()
    for library in torch_lib.glob("*.so*"):
        names.update(NEEDED.findall(readelf("-d", library)))
        for symbol, version in UNDEFINED.findall(readelf("--dyn-syms", library)):
            if VERSION.match(version):
                versions[version].add(symbol)
            elif not version and UNVERSIONED.match(symbol):
                plain.add(symbol)
    # Every function answers 100, which is "no device": torch asks while it loads, and finds none.
    source, script, stub = (folder / f"stub{suffix}" for suffix in (".s", ".map", ".so"))
    symbols = sorted(plain.union(*versions.values()))
    source.write_text("".join(f".globl {x}\n{x}:\n" for x in symbols) + "mov w0, 100\nret\n")
    nodes = (f"{v} {{ global: {'; '.join(sorted(s))}; }};\n" for v, s in versions.items())
    script.write_text("".join(nodes))
    command = [compiler, "-shared", "-nostdlib", f"-Wl,--version-script={script}", source]
    subprocess.run([*command, "-o", stub], check=True)
    for name in names:
        (folder / name).symlink_to(stub.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
