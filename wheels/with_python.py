"""A wheel for another Python: the same files with another _C.

`python wheels/with_python.py cp312 _C.cpython-312-x86_64-linux-gnu.so fastcl-...-cp311-....whl`
writes it beside the given wheel.
"""

import base64
import hashlib
import re
import sys
import zipfile
from pathlib import Path


def line(name: str, content: bytes) -> str:
    """Of a wheel's RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def write(tag: str, library: Path, wheel: Path) -> Path:
    old = re.search(r"-(cp\d+)-cp\d+-", wheel.name).group(1)
    target = wheel.with_name(wheel.name.replace(f"-{old}-{old}-", f"-{tag}-{tag}-"))
    with zipfile.ZipFile(wheel) as source:
        files = {info.filename: source.read(info) for info in source.infolist()}
    (extension,) = [name for name in files if name.startswith("fastcl/_C.")]
    del files[extension]
    files[f"fastcl/{library.name}"] = library.read_bytes()
    (about,) = [name for name in files if name.endswith(".dist-info/WHEEL")]
    files[about] = files[about].replace(f"{old}-{old}".encode(), f"{tag}-{tag}".encode())
    record = about.replace("WHEEL", "RECORD")
    del files[record]
    lines = [line(name, content) for name, content in files.items()]
    files[record] = ("".join(lines) + f"{record},,\n").encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            # Other than a file's own mode a library's would be nobody's to read.
            info.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            out.writestr(info, content, zipfile.ZIP_DEFLATED)
    return target


if __name__ == "__main__":
    print(write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
