//! The program around the cluster: its stores, its folders, its certificates, its bundles, its commands.

mod address;
mod backup;
mod backup_proof;
mod backup_s3;
mod certificates;
mod certs;
mod daemon;
mod drift;
mod etcd;
mod etcd_managed;
mod machine;
mod manifests;
mod pods;
mod readme;
mod registry;

use e2e::{Case, Cluster};

/// Cases beside a cluster that others use too.
pub const BESIDE: [Case<Cluster>; 4] = [
    Case { name: "program_check_config", run: machine::check_config },
    Case { name: "program_configuration", run: machine::configuration },
    Case { name: "program_install", run: machine::install },
    Case { name: "program_readme", run: readme::commands },
];

/// Cases with clusters of their own.
pub const ALONE: [Case<()>; 13] = [
    Case { name: "virtual_address_moves", run: address::moves },
    Case { name: "etcd_as_the_store", run: etcd::as_the_store },
    Case { name: "etcd_managed", run: etcd_managed::lives_and_dies },
    Case { name: "etcd_conversion_under_writes", run: etcd_managed::converted },
    Case { name: "etcd_full", run: etcd_managed::full },
    Case { name: "images_from_a_registry", run: registry::images },
    Case { name: "manifests_are_applied_and_pruned", run: manifests::manifests },
    Case { name: "drift_by_hand", run: drift::by_hand },
    Case { name: "backup_and_restore", run: backup::restored },
    Case { name: "backup_proves_itself", run: backup_proof::proves_itself },
    Case { name: "backup_to_s3_and_from_nothing", run: backup_s3::to_a_store },
    Case { name: "uninstall_leaves_nothing", run: machine::uninstall },
    Case { name: "certificates_renew_themselves", run: certificates::renew },
];
