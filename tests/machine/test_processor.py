"""The processor's features decide whether bf16 can be used."""

import pytest

from paddleseg_infer.machine.processor import described, missing_for_bf16

LINES = "processor\t: {n}\nmodel name\t: A processor\nflags\t\t: fpu sse2 {flags}\nMHz\t: {n}\n\n"


def cpu_info(folder, flags):
    path = folder / "cpuinfo"
    path.write_text("".join(LINES.format(n=n, flags=flags) for n in range(2)))
    return str(path)


@pytest.mark.parametrize(
    ("flags", "is_missing"),
    [
        ("avx512f avx512_bf16", False),
        ("avx512f amx_bf16 amx_tile", False),
        ("avx512f avx512_bf16x", True),
        ("avx512f avx512_vnni", True),
        ("", True),
    ],
)
def test_bf16_needs_one_of_two_features(tmp_path, flags, is_missing):
    missing = missing_for_bf16(cpu_info(tmp_path, flags))
    assert missing == ("this processor has neither avx512_bf16 nor amx_bf16" if is_missing else "")


def test_a_system_without_the_file_has_no_bf16(tmp_path):
    assert missing_for_bf16(str(tmp_path / "gone"))


def test_the_description_has_each_line_once_and_nothing_that_changes(tmp_path):
    found = described(cpu_info(tmp_path, "avx2"))
    assert found == "flags\t\t: fpu sse2 avx2\nmodel name\t: A processor"
