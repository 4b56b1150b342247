//! Reading and writing `metadata` in a tree: the one place that knows its field names.
