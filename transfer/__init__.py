"""The ImageNet network in other tasks: detection, segmentation, keypoints."""
