//! The program around the cluster: its stores, its folders, its certificates, its bundles, its commands.

mod certs;
mod daemon;
mod etcd;
mod pods;
mod registry;

use e2e::Case;

/// Cases with clusters of their own.
pub const ALONE: [Case<()>; 2] = [
    Case { name: "etcd_as_the_store", run: etcd::as_the_store },
    Case { name: "images_from_a_registry", run: registry::images },
];
