"""The content store: every file once, by sha256, on one disk, with one owner."""
