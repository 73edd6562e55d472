"""The gallery's command line: reads reports and makes a page."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError, shown
from paddleseg_infer.flags import Parser, whole
from paddleseg_infer.machine.limits import usable_processors
from paddleseg_infer.machine.streams import own_streams, say
from paddleseg_infer.outcomes import DONE, NOT_STARTED, SOME_FAILED

MOST_WORKERS = 1000


def command() -> NoReturn:
    """The entry point of `paddleseg-gallery` and of `python -m paddleseg_infer.gallery`."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the page and prints where it is. Returns the exit code."""
    given = _parser().parse_args(arguments)
    with own_streams(print_detail=False):
        try:
            return run(given.report, given.save_dir, given.gallery_dir, given.num_workers)
        except ConfigError as error:
            say(f"error: {error}\n", sys.stderr)
        except ModuleNotFoundError as error:
            say(f"error: {error}: {MISSING_HINT}\n", sys.stderr)
        except RunError as error:
            say(f"error: {error}\n", sys.stderr)
            return SOME_FAILED
        except KeyboardInterrupt:
            say("interrupted: no page was made, an older page is unchanged\n", sys.stderr)
            return 128 + signal.SIGINT
    return NOT_STARTED


def _parser() -> Parser:
    parser = Parser(
        prog="python -m paddleseg_infer.gallery",
        description="Makes a page of the images and pictures of a run, from its report. Open the "
        "page in a browser: it needs no server and no network.",
        epilog="Exit codes: 0, the page is made; 1, it could not be written; 2, the arguments or "
        "the reports can't be used; 130 or 143, it was interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "report",
        nargs="+",
        metavar="REPORT",
        help="the file of --report; of a run with --shard, the files of all parts",
    )
    parser.add_argument(
        "--save_dir",
        metavar="DIR",
        help="the folder of the run's pictures (default: that in the report)",
    )
    parser.add_argument(
        "--gallery_dir",
        metavar="DIR",
        help="the folder for the page (default: gallery in the folder of the pictures)",
    )
    parser.add_argument(
        "--num_workers",
        type=partial(whole, most=MOST_WORKERS),
        default=usable_processors(),
        metavar="N",
        help="the number of processes that make small pictures (default: the usable processors)",
    )
    return parser


def run(paths: Sequence[str], save_dir: str | None, place: str | None, workers: int) -> int:
    """Makes the page. Raises ConfigError or RunError."""
    from paddleseg_infer.gallery.making import make_gallery
    from paddleseg_infer.gallery.records import read_reports

    started = time.monotonic()
    if place == "":
        raise ConfigError("--gallery_dir is empty: give a folder")
    paths = list(dict.fromkeys(paths))
    reports = read_reports(paths, save_dir)
    folders = sorted({record.run.pictures for record in reports.records.values()})
    if place is None and len(folders) > 1:
        raise ConfigError(
            f"the pictures are in several folders ({shown(folders[0])}, {shown(folders[1])}): give "
            "a folder for the page as --gallery_dir"
        )
    place = os.path.join(folders[0], "gallery") if place is None else place
    title = ", ".join(shown(os.path.basename(path)) for path in paths)
    near = os.path.relpath(place)
    page = make_gallery(reports, title, place, workers)
    page = page if near.startswith(os.pardir) else os.path.join(near, os.path.basename(page))
    for note in reports.notes:
        say(f"note: {note}\n", sys.stderr)
    seconds = time.monotonic() - started
    count = len(reports.records)
    images = "1 image" if count == 1 else f"{count} images"
    say(f"{images} in {seconds:.1f} s: open {shown(page)} in a browser\n")
    return DONE


def _terminated(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)  # so that the processes and the unfinished folder are removed
