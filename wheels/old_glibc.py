"""Libraries to link against in place of this system's C library, so that what is linked runs with
an older one: `python wheels/old_glibc.py FOLDER` writes them and prints the linker's options.

A symbol keeps the newest version that the old library had, as this system's one still lists it;
what is newer is not there, and a program that needs it does not link. The headers stay the
system's. Nothing of this is loaded when the program runs.
"""

import re
import subprocess
import sys
from pathlib import Path

OLDEST = (2, 28)  # of manylinux_2_28
LINE = re.compile(
    r"\s*\d+: \w+\s+\w+ (?P<kind>FUNC|IFUNC|OBJECT)\s+(?:GLOBAL|WEAK)\s+DEFAULT\s+(?P<at>\w+) "
    r"(?P<name>\w+)@@?GLIBC_(?P<version>[\d.]+)"
)
# GCC's headers look at it since glibc 2.32 has it; 0 says that there may be more than one thread.
SINGLE = '__attribute__((visibility("hidden"))) char __libc_single_threaded;\n'


def found(compiler: str, name: str) -> Path:
    """Where the compiler finds a library."""
    done = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip()).resolve()


def symbols(library: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Version and kind of every symbol as the old library had it."""
    done = subprocess.run(
        ["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True
    )
    old: dict[str, tuple[tuple[int, ...], str]] = {}
    for match in filter(None, map(LINE.match, done.stdout.splitlines())):
        version = tuple(int(part) for part in match["version"].split("."))
        if match["at"] != "UND" and version[:2] <= OLDEST:
            old[match["name"]] = max(old.get(match["name"], ((), "")), (version, match["kind"]))
    return old


def stub(compiler: str, target: Path, old: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """A library of these symbols without anything behind them."""
    assembly, versions = [], {}
    for name, (version, kind) in old.items():
        word = "object" if kind == "OBJECT" else "function"
        assembly.append(f".globl {name}\n.type {name}, @{word}\n{name}: .quad 0\n.size {name}, 8\n")
        versions.setdefault(version, []).append(name)
    script = target.with_suffix(".map")
    script.write_text(
        "".join(
            f"GLIBC_{'.'.join(map(str, version))} {{ global: {'; '.join(names)}; }};\n"
            for version, names in sorted(versions.items())
        )
    )
    source = target.with_suffix(".s")
    source.write_text('.section .note.GNU-stack, ""\n.data\n' + "".join(assembly))
    options = [f"-Wl,--version-script={script}"] if versions else []
    subprocess.check_call(
        [compiler, "-shared", "-nostdlib", f"-Wl,-soname,{target.name}", *options]
        + ["-o", target, source]
    )


def write(folder: Path, compiler: str = "gcc") -> None:
    """The libraries, under the names by which a linker asks for them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("libc.so.6", "libm.so.6"):
        stub(compiler, folder / name, symbols(found(compiler, name)))
    # Since 2.34 they are parts of libc; an older system has to load them.
    for name in ("libpthread.so.0", "libdl.so.2", "librt.so.1"):
        stub(compiler, folder / name, {})
        link = folder / name.rsplit(".", 1)[0]
        link.unlink(missing_ok=True)
        link.symlink_to(name)
    single = folder / "single.c"
    single.write_text(SINGLE)
    subprocess.check_call([compiler, "-fPIC", "-c", single, "-o", folder / "single.o"])
    static = found(compiler, "libc_nonshared.a")
    loader = found(compiler, "ld-linux-x86-64.so.2")
    (folder / "libc.so").write_text(
        f"GROUP ( {folder}/libc.so.6 {static} {folder}/single.o AS_NEEDED ( {loader} ) )\n"
    )
    (folder / "libm.so").write_text(f"GROUP ( {folder}/libm.so.6 )\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve())
    threads = "-Wl,--no-as-needed -lpthread -ldl -lrt -Wl,--as-needed"
    print(f"-L{Path(sys.argv[1]).resolve()} {threads}")
