//! Bytes to trees and back, for the three encodings that clients speak. Bounded in depth; size is the reader's bound.

pub mod json;
pub mod protobuf;
pub mod yaml;
