"""What tests/emulated/bochs.py makes of the emulated processor's report. It boots none."""

import pytest
from emulated import bochs

SECTIONS = [
    "bank",
    "nce",
    "sinkhorn",
    "soft_cross_entropy",
    "momentum",
    "unit_rows",
    "contrasts",
    "emulated",
    "avx512bf16",
    "amx",
]


def report(right=SECTIONS, differ=0, status=0, faulty=(("momentum", 9), ("amx", 5))):
    lines = [f"section {name}: 40 checks, {differ} differ" for name in right]
    lines.append(f"right exits {status}")
    lines += [f"section {name}: 40 checks, {count} differ" for name, count in faulty]
    return "\n".join([*lines, "faulty exits 1", "reboot: Power down"])


def test_a_good_report():
    assert bochs.judge(report()) == []


@pytest.mark.parametrize(
    "said, wrong",
    [
        (report(differ=1), "amx: 1 of 40"),
        (report(right=SECTIONS[:-1]), "9 of 10 sections ran"),
        (report(status=139), "not every check passed"),
        (report(faulty=[("momentum", 9), ("amx", 0)]), "planted in amx was not seen"),
        (report(faulty=[("amx", 5)]), "planted in momentum was not seen"),
        (report().partition("faulty exits")[0], "did not run to their ends"),
        ("", "did not run to their ends"),
    ],
)
def test_what_is_wrong_is_said(said, wrong):
    assert any(wrong in x for x in bochs.judge(said))


@pytest.mark.parametrize("lacking", ["build", "packages"])
def test_it_says_what_it_lacks_and_skips(lacking, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bochs, "ROOT", tmp_path)
    monkeypatch.setattr(bochs, "WORK", tmp_path / "build" / "emulated")
    if lacking == "packages":
        (tmp_path / "build" / "dev").mkdir(parents=True)
        (tmp_path / "build" / "dev" / "build.ninja").touch()
        monkeypatch.setenv("PATH", "")
    assert bochs.main(None) == 0
    said = {"build": "no build folder", "packages": "Debian's packages cannot be fetched"}
    assert f"bochs: skipped, {said[lacking]}" in capsys.readouterr().out
