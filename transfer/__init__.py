"""The networks carried over to other tasks: detection, segmentation, keypoints."""
