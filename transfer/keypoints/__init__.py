"""Joints of people: SimpleBaseline (Xiao et al., ECCV 2018, arXiv:1804.06208) on our backbone."""
