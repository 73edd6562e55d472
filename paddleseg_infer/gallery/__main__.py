"""Starts the command line of the gallery: `python -m paddleseg_infer.gallery`."""

from paddleseg_infer.gallery.command import command

if __name__ == "__main__":
    command()
