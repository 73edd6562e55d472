"""The program finds the same images as PaddleSeg, and each mask has its own name."""

import os
import subprocess

import pytest

from paddleseg_infer.errors import ConfigError, shown
from paddleseg_infer.runs.jobs import find_jobs, part_of


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A temporary folder, which is the working folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def pairs(path, save_dir="output"):
    """Returns the pairs (image, mask) that find_jobs finds."""
    return [(job.image, job.stem + ".png") for job in find_jobs(str(path), str(save_dir)).jobs]


def test_images_of_a_folder_are_sorted_and_masks_keep_their_paths(here):
    make(here / "in", "b.PNG", "a.jpg", "sub/deep/c.Jpeg", "sub/d.bmp", "e.tiff", "notes.txt", "f")
    assert pairs("in") == [
        ("in/a.jpg", "a.png"),
        ("in/b.PNG", "b.png"),
        ("in/e.tiff", "e.png"),
        ("in/sub/d.bmp", "sub/d.png"),
        ("in/sub/deep/c.Jpeg", "sub/deep/c.png"),
    ]


def test_hidden_files_and_notebook_checkpoints_are_skipped(here):
    make(here / "in", "a.jpg", ".hidden.jpg", ".ipynb_checkpoints/b.jpg", ".folder/c.jpg")
    assert [image for image, _ in pairs("in")] == ["in/a.jpg", "in/.folder/c.jpg"]


def test_the_search_skips_only_the_output_folder(here):
    make(here, "a.jpg", "output/a.png", "sub/output/b.jpg")
    assert pairs(".") == [("./a.jpg", "a.png"), ("./sub/output/b.jpg", "sub/output/b.png")]


def test_links_to_files_are_followed_and_links_to_folders_are_not(here):
    make(here / "elsewhere", "far.jpg")
    make(here / "in", "a.jpg")
    (here / "in" / "link.jpg").symlink_to(here / "elsewhere" / "far.jpg")
    (here / "in" / "folder").symlink_to(here / "elsewhere")
    (here / "in" / "broken.jpg").symlink_to("nothing")
    assert [mask for _, mask in pairs("in")] == ["a.png", "broken.png", "link.png"]


def test_masks_that_would_have_the_same_name_keep_the_images_suffix(here):
    make(here / "in", "a.jpg", "a.png", "A.bmp", "b.jpg", "sub/a.jpg")
    assert [mask for _, mask in pairs("in")] == [
        "A.bmp.png",
        "a.jpg.png",
        "a.png.png",
        "b.png",
        "sub/a.png",
    ]


def test_two_masks_with_the_same_name_end_the_run(here):
    make(here / "in", "a.jpg", "a.bmp", "a.jpg.tif")
    with pytest.raises(ConfigError, match=r"in/a.jpg.tif.*a.jpg.png"):
        pairs("in")


@pytest.mark.parametrize("save_dir", ["in", "./in/", "link"])
def test_the_image_folder_is_refused_as_the_output_folder(here, save_dir):
    make(here / "in", "a.jpg")
    (here / "link").symlink_to("in")
    with pytest.raises(ConfigError, match="is the folder of the images: choose"):
        pairs("in", save_dir)


def test_a_mask_never_overwrites_an_image(here):
    make(here, "a.png", "b.jpg", "images/c.png")
    with pytest.raises(ConfigError, match="the mask of a.png would overwrite the image a.png"):
        pairs("a.png", here)
    assert pairs("b.jpg", here) == [("b.jpg", "b.png")]
    (here / "list.txt").write_text("images/c.png\nb.jpg\n")
    (here / "out").symlink_to(".")
    with pytest.raises(ConfigError, match="would overwrite the image images/c.png"):
        pairs("list.txt", "out")


def test_names_of_all_kinds_of_pictures_are_checked(here):
    make(here / "in", "a.jpg", "label/a.jpg")
    with pytest.raises(
        ConfigError, match=r"in/a.jpg and in/label/a.jpg would have the same path label/a.png"
    ):
        find_jobs("in", "out", ("mask", "label"))
    assert len(find_jobs("in", "out", ("label", "overlay")).jobs) == 2
    make(here, "overlay/b.png", "b.jpg")
    (here / "list.txt").write_text("b.jpg\noverlay/b.png\n")
    with pytest.raises(
        ConfigError, match="overlay of b.jpg would overwrite the image overlay/b.png"
    ):
        find_jobs("list.txt", ".", ("overlay",))


@pytest.mark.parametrize(
    "signature",
    [
        b"\x89PNG\r\n\x1a\n...",
        b"\xff\xd8\xff\xe0",
        b"BM....\0\0\0\0....",
        b"II*\0....",
        b"MM\0*....",
        b"RIFF....WEBPVP8 ",
    ],
)
def test_an_image_is_recognised_by_its_signature(here, signature):
    (here / "x.dat").write_bytes(signature)
    assert pairs("x.dat") == [("x.dat", "x.png")]


@pytest.mark.parametrize("link", ["in/x.png", "x.png"])
def test_a_mask_never_overwrites_the_file_that_an_image_links_to(here, link):
    make(here, "output/x.png", "other.png")
    (here / link).parent.mkdir(exist_ok=True)
    (here / link).symlink_to(here / "output" / "x.png")
    with pytest.raises(ConfigError, match=r"would overwrite the image .*x.png"):
        pairs((here / link).parent if link.startswith("in") else ".")


def test_folders_that_are_nested_too_deep_give_an_error_message(here):
    folder = os.open(here, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    try:
        with pytest.raises(ConfigError, match="too many levels|contains no image"):
            pairs(here)
    finally:
        subprocess.run(["rm", "-rf", here / "d"], check=True)  # pytest can't delete it


def test_an_image_is_recognised_by_its_suffix(here):
    make(here, "a.JPG")
    assert pairs("a.JPG") == [("a.JPG", "a.png")]


# ---- lists -------------------------------------------------------------------------------------


def write_list(here, text, name="list.txt"):
    (here / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def test_each_line_of_a_list_is_a_path_relative_to_the_list(here):
    make(here / "set", "a.jpg", "sub/b.any")
    (here / "set" / "list.txt").write_bytes(b"\xef\xbb\xbfa.jpg label.png\r\n\r\nsub/b.any\n \n")
    assert pairs("set/list.txt") == [("set/a.jpg", "a.png"), ("set/sub/b.any", "sub/b.png")]


def test_a_line_with_spaces_is_a_single_path_if_the_file_exists(here):
    make(here, "my photo.jpg", "my")
    write_list(here, "my photo.jpg\nmy other.jpg\n")
    assert pairs("list.txt") == [("my photo.jpg", "my photo.png"), ("my", "my.png")]


def test_masks_of_absolute_and_parent_paths_keep_the_path_below_the_common_parent(here):
    make(here, "one/a.jpg", "two/deep/b.jpg", "lists/x")
    write_list(here, f"../one/a.jpg\n{here}/two/deep/b.jpg\n", "lists/all.txt")
    assert [mask for _, mask in pairs("lists/all.txt")] == ["one/a.png", "two/deep/b.png"]


def test_repeated_lines_are_done_once(here):
    make(here, "a.jpg", "b.jpg")
    (here / "x").mkdir()
    write_list(here, f"a.jpg\nb.jpg\n./a.jpg\n{here}/a.jpg\nx/../b.jpg\n")
    listing = find_jobs("list.txt", "output")
    assert [job.image for job in listing.jobs] == ["a.jpg", "b.jpg"]
    assert listing.repeated == 3


def test_two_dots_after_a_link_mean_the_same_folder_as_for_the_system(here):
    """The path x/.. is the folder far, so x/../b.jpg is not the b.jpg in the working folder."""
    make(here, "b.jpg", "far/b.jpg", "far/dir/c.jpg")
    (here / "x").symlink_to("far/dir")
    write_list(here, "b.jpg\nx/../b.jpg\n")
    assert pairs("list.txt") == [("b.jpg", "b.png"), ("x/../b.jpg", "far/b.png")]


def test_only_newlines_end_a_line_of_a_list(here):
    odd = ["a\x0cb.png", "c\u2028d.png", " lead.png", "e\x85f.png", "\u3000g.png"]
    make(here, *odd)
    write_list(here, "\r\n".join(odd))
    assert [image for image, _ in pairs("list.txt")] == odd


def test_a_list_may_begin_with_the_signature_of_a_bitmap(here):
    make(here, "BMW_1.png")
    assert pairs(write_list(here, "BMW_1.png and more words\n")) == [("BMW_1.png", "BMW_1.png")]


def test_a_large_file_that_is_not_text_is_not_read_completely(here):
    with open(here / "film.mp4", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="neither an image .* nor a list of images"):
        pairs("film.mp4")


def test_a_missing_file_of_a_list_stays_a_job(here):
    write_list(here, "gone.jpg 1\n")
    assert pairs("list.txt") == [("gone.jpg", "gone.png")]


@pytest.mark.parametrize("text", ["", "\n \n", b"\xef\xbb\xbf"])
def test_an_empty_list_is_refused(here, text):
    with pytest.raises(ConfigError, match="is a list without image names"):
        pairs(write_list(here, text))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00a", b"a\0b.jpg\n", b"\x80abc"])
def test_a_file_that_is_neither_image_nor_text_is_refused(here, content):
    with pytest.raises(ConfigError, match="neither an image .* nor a list of images"):
        pairs(write_list(here, content))


# ---- no images ---------------------------------------------------------------------------------


def test_a_missing_path_an_empty_folder_and_a_pipe_are_refused(here):
    with pytest.raises(ConfigError, match="--image_path nowhere: no such file"):
        pairs("nowhere")
    make(here / "in", "notes.txt")
    with pytest.raises(ConfigError, match=r"--image_path in contains no image \(.bmp, .dib, .jfif"):
        pairs("in")
    os.mkfifo(here / "pipe")
    for path in ("pipe", os.devnull):
        with pytest.raises(ConfigError, match="is a pipe or a device"):
            pairs(path)


def test_an_image_is_of_the_same_shard_wherever_its_folder_lies(here):
    """On another machine, or by another name of the folder."""
    for folder in ("here", "elsewhere"):
        make(here / folder, *(f"{number}.png" for number in range(40)))
    shards = []
    for path in ("here", "elsewhere", str(here / "here")):
        of_first = part_of(find_jobs(path, "output").jobs, path, 0, 2)
        shards.append([job.stem for job in of_first])
    assert 0 < len(shards[0]) < 40
    assert shards[0] == shards[1] == shards[2]


# ---- names in messages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("街景 1.jpg", "街景 1.jpg"),
        ("a\nb\t\x1b[31m\x7f", r"a\nb\t\x1b[31m\x7f"),
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\xe9.jpg"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
    ],
)
def test_control_characters_of_a_name_are_escaped(name, text):
    assert shown(name) == text
