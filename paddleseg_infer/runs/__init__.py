"""The course of a run: finds the images, segments them here, in workers or on Ray, and reports."""
