"""Image data: in-memory sets, folders and LMDB."""
