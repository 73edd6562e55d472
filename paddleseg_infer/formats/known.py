"""The picture formats: the suffixes of their files, and the bytes at the start of a file."""

import re

# OpenCV decodes these formats right, and a file that is cut off is noticed: see tests/formats.
SUFFIXES_OF = {
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "PNG": ".png",
    "BMP": ".bmp .dib",
    "TIFF": ".tif .tiff",
    "WebP": ".webp",
    "PNM": ".pnm .ppm .pgm .pbm",
}
READ = ", ".join(SUFFIXES_OF)
SUFFIXES = frozenset([*" ".join(SUFFIXES_OF.values()).split(), ".npy"])
# Formats of pictures that are not read. The program counts such files in a folder.
OTHER_SUFFIXES = frozenset(
    ".gif .apng .jp2 .j2k .j2c .jpc "
    ".heic .heif .hif .avif .jxl .jxr .wdp .hdp .jpx .jpf .jpm .tga .psd .psb .svg .svgz .ico "
    ".cur .icns .exr .hdr .pfm .pam .ras .sr .sun .pcx .dds .sgi .xbm .xpm .qoi .eps .dcm .dng "
    ".cr2 .cr3 .nef .nrw .arw .sr2 .orf .rw2 .raf .pef .srw .3fr .iiq .kdc .mrw .x3f".split()
)

SPACE = rb"(?:\s|#[^\n]*\n)+"
# The first bytes of an image that is read. Any other file may be a list of images.
SIGNATURE = re.compile(
    rb"\xff\xd8|\x93NUMPY|\x89PNG\r\n\x1a\n|BM....\0\0\0\0|II[*+]\0|MM\0[*+]|RIFF....WEBP"
    rb"|P[1-6]" + SPACE + rb"\d+" + SPACE + rb"\d+\s",
    re.DOTALL,
)
OTHER_SIGNATURES = {
    "a GIF": rb"GIF8[79]a",
    # A damaged one can crash OpenCV, and with it the process (seen with 4.11).
    "a JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "an AVIF": rb"....ftypavi[fs]",
    "a HEIC": rb"....ftyp(he(ic|ix|im|is|vc|vx|vm|vs)|mif1|msf1)",
    "a JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "a JPEG XR": rb"II\xbc",
    "a camera's raw": rb"II\*\0\x10\0\0\0CR\x02|....ftypcrx |FUJIFILMCCD-RAW|IIRO|IIU\0",
    "a Photoshop": rb"8BPS",
    "an OpenEXR": rb"\x76\x2f\x31\x01",
    "a Radiance": rb"#\?(RADIANCE|RGBE)",
    "a PFM": rb"P[Ff]\s+\d+\s+\d+\s",
    "a PAM": rb"P7\s+(#|WIDTH)",
    "a Sun raster": rb"\x59\xa6\x6a\x95",
    "a VRT": rb"\s*<VRTDataset",
    "an icon": rb"\x00\x00\x01\x00",
    "a DDS": rb"DDS ",
    "a QOI": rb"qoif",
    "an SVG": rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg",
}
OTHERS = {name: re.compile(pattern, re.DOTALL) for name, pattern in OTHER_SIGNATURES.items()}
PNG_SIGNATURE = b"\x89PNG"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEAD_BYTES = 4096


def other_format(head: bytes) -> str | None:
    """Returns the format of a file with this start, if it is one that isn't read, else None."""
    return next((name for name, pattern in OTHERS.items() if pattern.match(head)), None)
