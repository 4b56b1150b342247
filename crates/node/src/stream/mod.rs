//! Streams between clients and containers.
