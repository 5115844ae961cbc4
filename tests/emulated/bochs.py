"""The AVX-512, BF16 and AMX kernels of the CPU in an emulated processor: python bochs.py BUILD.

BUILD is a CMake build folder (none: the newest below build/), whose own objects are linked with
instruction_sets.cpp and booted in Debian's bochs with a Skylake-X processor; what that lacks
missing_instructions.cpp emulates. A second program has two faults, which must show. Nothing is
installed: Debian packages are unpacked into build/emulated. Where they cannot be fetched, or there
is no compiler or build, it says so and does nothing.
"""

import gzip
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "emulated" / "bochs"
TREE = WORK / "tree"  # what the packages hold
LIBRARIES = TREE / "usr/lib/x86_64-linux-gnu"
PLUGINS = LIBRARIES / "bochs/plugins"
BASE = ["bochs", "isolinux", "syslinux-common", "xorriso", "cpio", "busybox-static"]
KERNEL = "linux-image-cloud-amd64"
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
AMX = [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]
LIMIT = 600  # seconds of a processor; it takes a sixth of them
# Without a dummy for sound bochs dies where there is none.
EMULATOR = """\
config_interface: textconfig
display_library: rfb, options="timeout=0"
romimage: file=tree/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=tree/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0
memory: guest=512, host=512
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
log: bochs.log
clock: sync=none
speaker: enabled=0
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
"""
# The signal frame must hold registers where missing_instructions.cpp looks: no compact format.
LOADER = """\
default l
prompt 0
timeout 1
label l
 kernel /vmlinuz
 append initrd=/initrd.gz console=ttyS0,115200 quiet loglevel=4 tsc=reliable lpj=1000000 nokaslr \
mitigations=off nosmp nosmap nosmep noapic random.trust_cpu=on clocksource=tsc noxsaves \
clearcpuid=xsavec
"""
FIRST_PROCESS = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/right; echo "right exits $?"
/faulty momentum amx; echo "faulty exits $?"
/bin/busybox poweroff -f
"""


class Lacking(Exception):
    """What this machine does not have, or cannot fetch."""


def output(*command, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[-3000:]}")
    return done.stdout


def unpack() -> None:
    """Debian's packages, with what they need and the system does not have, into TREE."""
    done = WORK / "unpacked"
    if done.exists():
        return
    packages = WORK / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    try:
        plan = output("apt-get", "-s", "install", "--no-install-recommends", *BASE)
        kernel = re.search(r"Depends: (linux-image-\S+)", output("apt-cache", "depends", KERNEL))
        wanted = {*BASE, kernel[1], *re.findall(r"^Inst (\S+)", plan, re.M)}
        output("apt-get", "download", *sorted(wanted), cwd=packages)
        for package in packages.glob("*.deb"):
            output("dpkg", "-x", package, TREE)
    except (OSError, RuntimeError, TypeError) as error:
        raise Lacking(f"Debian's packages cannot be fetched: {str(error)[-200:]}") from error
    done.touch()


def objects(build: Path) -> list[Path]:
    """Of the operators' library, what knows no torch."""
    libraries = build / "CMakeFiles"
    found = [*libraries.glob("fastcl_*.dir/csrc/cpu/simd/*.o")]
    for path in libraries.glob("fastcl_ops.dir/csrc/cpu/**/*.o"):
        if path.name != "threads.cpp.o":
            found.append(path)
    if not any("fastcl_avx512.dir" in str(x) for x in found):
        raise Lacking(f"{build} holds no AVX-512 kernels")
    return found


def compile_to(target: Path, source: Path, *flags) -> Path:
    include = ["-I", ROOT / "csrc"]
    output("g++", "-std=c++20", "-fPIC", *flags, *include, "-c", source, "-o", target)
    return target


def faults() -> dict[str, Path]:
    """By the name of the object whose place each takes.

    Products and sums of the momentum that are fused; a matrix register multiplied in the place of
    another.
    """
    csrc = ROOT / "csrc" / "cpu"
    fused = ["-O3", "-DFASTCL_SIMD=avx512", *AVX512, "-ffp-contract=fast"]
    header = WORK / "cpu" / "pairs" / "product.h"
    header.parent.mkdir(parents=True, exist_ok=True)
    text = (csrc / "pairs" / "product.h").read_text()
    assert text.count("multiply<3, 5, 7>") == 1
    header.write_text(text.replace("multiply<3, 5, 7>", "multiply<3, 5, 6>"))
    return {
        "fastcl_avx512.dir/csrc/cpu/simd/momentum.cpp.o": compile_to(
            WORK / "fused.o", csrc / "simd" / "momentum.cpp", *fused
        ),
        "fastcl_ops.dir/csrc/cpu/pairs/amx.cpp.o": compile_to(
            WORK / "amx.o", csrc / "pairs" / "amx.cpp", "-O2", *AMX, "-I", WORK
        ),
    }


def programs(build: Path) -> dict[str, Path]:
    """The right one and the faulty one, linked statically: the machine has no libraries."""
    if shutil.which("g++") is None:
        raise Lacking("no g++")
    right = objects(build)
    tests = [
        compile_to(WORK / f"{x}.o", HERE / f"{x}.cpp", "-O1")
        for x in ("instruction_sets", "contrasts", "missing_instructions")
    ]
    planted = faults()

    def of_fault(path: Path) -> Path:
        return next((x for name, x in planted.items() if str(path).endswith(name)), path)

    linked = {"right": right, "faulty": [of_fault(x) for x in right]}
    assert sum(a != b for a, b in zip(*linked.values(), strict=True)) == len(planted)
    try:
        for name, parts in linked.items():
            output("g++", *tests, *parts, "-static", "-o", WORK / name)
    except RuntimeError as error:
        if "cannot find -l" in str(error):
            raise Lacking("no static libraries of C and C++") from error
        raise
    return {name: WORK / name for name in linked}


def disc(files: dict[str, Path]) -> None:
    """boot.iso: Linux and a file system of busybox, the programs and what runs them."""
    image, memory = WORK / "image", WORK / "memory"
    for folder in (image / "isolinux", memory / "bin", memory / "proc", memory / "dev"):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TREE / "bin/busybox", memory / "bin/busybox")
    for name, path in files.items():
        shutil.copy(path, memory / name)
    (memory / "init").write_text(FIRST_PROCESS)
    (memory / "init").chmod(0o755)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
    listing = "\n".join(str(x.relative_to(memory)) for x in [*memory.rglob("*")]).encode()
    packed = subprocess.run(
        [TREE / "bin/cpio", "-o", "-H", "newc", "--quiet"], input=listing, cwd=memory, check=True,
        capture_output=True, env=environment,
    )  # fmt: skip
    (image / "initrd.gz").write_bytes(gzip.compress(packed.stdout, 1))
    shutil.copy(next(TREE.glob("boot/vmlinuz-*")), image / "vmlinuz")
    shutil.copy(TREE / "usr/lib/ISOLINUX/isolinux.bin", image / "isolinux")
    shutil.copy(TREE / "usr/lib/syslinux/modules/bios/ldlinux.c32", image / "isolinux")
    (image / "isolinux/isolinux.cfg").write_text(LOADER)
    output(
        TREE / "usr/bin/xorriso", "-as", "mkisofs", "-o", WORK / "boot.iso", "-b",
        "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4",
        "-boot-info-table", image, env=environment,
    )  # fmt: skip


def boot() -> str:
    """What the machine says on its serial line until it is switched off."""
    (WORK / "bochsrc").write_text(EMULATOR)
    (WORK / "commands").write_text("continue\n")
    serial = WORK / "serial.txt"
    serial.unlink(missing_ok=True)
    environment = {
        **os.environ, "LTDL_LIBRARY_PATH": str(PLUGINS), "BXSHARE": str(TREE / "usr/share/bochs"),
        "LD_LIBRARY_PATH": f"{LIBRARIES}:{PLUGINS}",
    }  # fmt: skip
    command = [TREE / "usr/bin/bochs-bin", "-q", "-f", "bochsrc", "-rc", "commands"]
    with open(WORK / "emulator.txt", "w") as log:
        done = subprocess.run(
            command, cwd=WORK, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT)),
        )  # fmt: skip
    if done.returncode < 0:
        print(f"bochs was stopped by signal {-done.returncode}: see {WORK}/emulator.txt")
    return serial.read_text(errors="replace") if serial.exists() else ""


def judge(said: str) -> list[str]:
    """What is wrong with the report of the two programs."""
    right, _, faulty = said.partition("right exits")
    wrong = []
    if not faulty.startswith(" 0") or "faulty exits" not in faulty:
        wrong.append("the programs did not run to their ends, or not every check passed")
    sections = re.findall(r"section (\w+): (\d+) checks, (\d+) differ", right)
    if len(sections) != 10:
        wrong.append(f"{len(sections)} of 10 sections ran")
    wrong += [f"{name}: {bad} of {count}" for name, count, bad in sections if bad != "0"]
    for name in ("momentum", "amx"):
        found = re.search(rf"section {name}: \d+ checks, (\d+) differ", faulty)
        if found is None or found[1] == "0":
            wrong.append(f"the fault planted in {name} was not seen")
    return wrong


def main(build: Path | None) -> int:
    try:
        if build is None:
            made = [*(ROOT / "build").glob("*/build.ninja")]
            if not made:
                raise Lacking("no build folder")
            build = max(made, key=lambda x: x.stat().st_mtime).parent
        unpack()
        disc(programs(build))
    except Lacking as lacking:
        print(f"bochs: skipped, {lacking}")
        return 0
    said = boot()
    right = said.partition("right exits")[0]
    print(*re.findall(r"^section .*|.* allowed .*", right, re.M), sep="\n")
    wrong = judge(said)
    print("\n".join(f"bochs: {x}" for x in wrong or ["every operator agrees; faults are seen"]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None))
