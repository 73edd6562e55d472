"""The pictures that are saved for a segmented image: their kinds, colours and files."""
