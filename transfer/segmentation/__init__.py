"""Segmentation: BiSeNet on the network for ImageNet, trained on Cityscapes."""
