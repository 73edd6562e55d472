"""Images are found where PaddleSeg finds them, and every mask has a name of its own."""

import os
import subprocess

import pytest

from paddleseg_infer.errors import ConfigError, shown
from paddleseg_infer.runs.jobs import find_jobs


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(path, save_dir="output"):
    """(image, mask) pairs."""
    return [(job.image, job.target) for job in find_jobs(str(path), str(save_dir)).jobs]


def test_a_folder_is_walked_sorted_and_keeps_its_paths(here):
    make(here / "in", "b.PNG", "a.jpg", "sub/deep/c.Jpeg", "sub/d.bmp", "e.tiff", "notes.txt", "f")
    assert names("in") == [
        ("in/a.jpg", "a.png"),
        ("in/b.PNG", "b.png"),
        ("in/e.tiff", "e.png"),
        ("in/sub/d.bmp", "sub/d.png"),
        ("in/sub/deep/c.Jpeg", "sub/deep/c.png"),
    ]


def test_hidden_files_and_notebook_checkpoints_are_passed_over(here):
    make(here / "in", "a.jpg", ".hidden.jpg", ".ipynb_checkpoints/b.jpg", ".folder/c.jpg")
    assert [image for image, _ in names("in")] == ["in/a.jpg", "in/.folder/c.jpg"]


def test_the_walk_leaves_out_the_output_folder_only(here):
    make(here, "a.jpg", "output/a.png", "sub/output/b.jpg")
    assert names(".") == [("./a.jpg", "a.png"), ("./sub/output/b.jpg", "sub/output/b.png")]


def test_links_to_files_are_followed_and_to_folders_not(here):
    make(here / "elsewhere", "far.jpg")
    make(here / "in", "a.jpg")
    (here / "in" / "link.jpg").symlink_to(here / "elsewhere" / "far.jpg")
    (here / "in" / "folder").symlink_to(here / "elsewhere")
    (here / "in" / "broken.jpg").symlink_to("nothing")
    assert [mask for _, mask in names("in")] == ["a.png", "broken.png", "link.png"]


def test_masks_that_would_share_a_name_keep_the_whole_one(here):
    make(here / "in", "a.jpg", "a.png", "A.bmp", "b.jpg", "sub/a.jpg")
    assert [mask for _, mask in names("in")] == [
        "A.bmp.png",
        "a.jpg.png",
        "a.png.png",
        "b.png",
        "sub/a.png",
    ]


def test_two_equal_names_left_over_end_the_run(here):
    make(here / "in", "a.jpg", "a.bmp", "a.jpg.tif")
    with pytest.raises(ConfigError, match=r"in/a.jpg.tif.*a.jpg.png"):
        names("in")


@pytest.mark.parametrize("save_dir", ["in", "./in/", "link"])
def test_the_image_folder_is_no_output_folder(here, save_dir):
    make(here / "in", "a.jpg")
    (here / "link").symlink_to("in")
    with pytest.raises(ConfigError, match="is the folder of the images itself"):
        names("in", save_dir)


def test_a_mask_never_takes_the_place_of_an_image(here):
    make(here, "a.png", "b.jpg", "images/c.png")
    with pytest.raises(ConfigError, match="the mask of a.png would overwrite the image a.png"):
        names("a.png", here)
    assert names("b.jpg", here) == [("b.jpg", "b.png")]
    (here / "list.txt").write_text("images/c.png\nb.jpg\n")
    (here / "out").symlink_to(".")
    with pytest.raises(ConfigError, match="would overwrite the image images/c.png"):
        names("list.txt", "out")


def test_names_of_all_kinds_of_pictures_are_checked(here):
    make(here / "in", "a.jpg", "label/a.jpg")
    with pytest.raises(ConfigError, match=r"in/a.jpg and in/label/a.jpg would both be label/a.png"):
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
def test_an_image_is_known_by_its_signature(here, signature):
    (here / "x.dat").write_bytes(signature)
    assert names("x.dat") == [("x.dat", "x.png")]


@pytest.mark.parametrize("link", ["in/x.png", "x.png"])
def test_a_mask_never_takes_the_place_of_what_an_image_links_to(here, link):
    make(here, "output/x.png", "other.png")
    (here / link).parent.mkdir(exist_ok=True)
    (here / link).symlink_to(here / "output" / "x.png")
    with pytest.raises(ConfigError, match=r"would overwrite the image .*x.png"):
        names((here / link).parent if link.startswith("in") else ".")


def test_folders_nested_too_deep_to_walk_are_a_sentence(here):
    folder = os.open(here, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    try:
        with pytest.raises(ConfigError, match="nested too deep|holds no image"):
            names(here)
    finally:
        subprocess.run(["rm", "-rf", here / "d"], check=True)  # pytest's own clean-up can't


def test_an_image_is_known_by_its_suffix(here):
    make(here, "a.JPG")
    assert names("a.JPG") == [("a.JPG", "a.png")]


# ---- lists -------------------------------------------------------------------------------------


def write_list(here, text, name="list.txt"):
    (here / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def test_a_list_names_an_image_a_line_from_its_own_folder(here):
    make(here / "set", "a.jpg", "sub/b.any")
    (here / "set" / "list.txt").write_bytes(b"\xef\xbb\xbfa.jpg label.png\r\n\r\nsub/b.any\n \n")
    assert names("set/list.txt") == [("set/a.jpg", "a.png"), ("set/sub/b.any", "sub/b.png")]


def test_a_line_with_spaces_is_the_whole_file_if_it_exists(here):
    make(here, "my photo.jpg", "my")
    write_list(here, "my photo.jpg\nmy other.jpg\n")
    assert names("list.txt") == [("my photo.jpg", "my photo.png"), ("my", "my.png")]


def test_absolute_and_parent_entries_keep_their_path_below_the_common_parent(here):
    make(here, "one/a.jpg", "two/deep/b.jpg", "lists/x")
    write_list(here, f"../one/a.jpg\n{here}/two/deep/b.jpg\n", "lists/all.txt")
    assert [mask for _, mask in names("lists/all.txt")] == ["one/a.png", "two/deep/b.png"]


def test_repeated_lines_are_done_once(here):
    make(here, "a.jpg", "b.jpg")
    (here / "x").mkdir()
    write_list(here, f"a.jpg\nb.jpg\n./a.jpg\n{here}/a.jpg\nx/../b.jpg\n")
    listing = find_jobs("list.txt", "output")
    assert [job.image for job in listing.jobs] == ["a.jpg", "b.jpg"]
    assert listing.repeated == 3


def test_a_parent_of_a_link_is_the_one_that_the_system_takes(here):
    """x/.. is far, not here: another b.jpg."""
    make(here, "b.jpg", "far/b.jpg", "far/dir/c.jpg")
    (here / "x").symlink_to("far/dir")
    write_list(here, "b.jpg\nx/../b.jpg\n")
    assert names("list.txt") == [("b.jpg", "b.png"), ("x/../b.jpg", "far/b.png")]


def test_only_line_ends_end_a_line_of_a_list(here):
    odd = ["a\x0cb.png", "c\u2028d.png", " lead.png", "e\x85f.png", "\u3000g.png"]
    make(here, *odd)
    write_list(here, "\r\n".join(odd))
    assert [image for image, _ in names("list.txt")] == odd


def test_a_list_may_begin_as_a_bitmap_does(here):
    make(here, "BMW_1.png")
    assert names(write_list(here, "BMW_1.png and more words\n")) == [("BMW_1.png", "BMW_1.png")]


def test_a_large_file_that_is_no_text_is_not_read_to_its_end(here):
    with open(here / "film.mp4", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="neither an image .* nor a list of images"):
        names("film.mp4")


def test_a_missing_entry_is_kept_to_fail_by_name(here):
    write_list(here, "gone.jpg 1\n")
    assert names("list.txt") == [("gone.jpg", "gone.png")]


@pytest.mark.parametrize("text", ["", "\n \n", b"\xef\xbb\xbf"])
def test_a_list_of_nothing_is_refused(here, text):
    with pytest.raises(ConfigError, match="is a list that names no image"):
        names(write_list(here, text))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00a", b"a\0b.jpg\n", b"\x80abc"])
def test_a_file_that_is_neither_image_nor_text_is_refused(here, content):
    with pytest.raises(ConfigError, match="neither an image .* nor a list of images"):
        names(write_list(here, content))


# ---- nothing to do -----------------------------------------------------------------------------


def test_a_missing_path_an_empty_folder_and_a_pipe_are_refused(here):
    with pytest.raises(ConfigError, match="--image_path nowhere: no such file"):
        names("nowhere")
    make(here / "in", "notes.txt")
    with pytest.raises(ConfigError, match=r"--image_path in holds no image \(.bmp, .jpeg"):
        names("in")
    os.mkfifo(here / "pipe")
    for path in ("pipe", os.devnull):
        with pytest.raises(ConfigError, match="is a pipe or a device"):
            names(path)


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
def test_a_name_is_shown_so_that_it_can_do_no_harm(name, text):
    assert shown(name) == text
