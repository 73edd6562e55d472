"""What is saved of a segmented image, in which colours, and how it becomes a file."""
