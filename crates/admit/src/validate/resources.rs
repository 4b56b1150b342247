//! What a container requests and is limited to.

use api::Tree;

use crate::causes::{At, Causes};
use crate::vocabulary::quantity;
use crate::{doc, names};

const NANOS: i128 = 1_000_000_000;

pub(super) fn check(resources: &Tree, at: &At, causes: &mut Causes) {
    for list in ["limits", "requests"] {
        for (resource, amount) in doc::entries(resources, list) {
            let at = at.child(list).key(resource);
            name(resource, &at, causes);
            let amount_nanos = quantity(amount).nanos;
            if amount_nanos < 0 {
                causes.invalid(&at, amount, "must be greater than or equal to 0");
            }
            if is_extended(resource) && amount_nanos % NANOS != 0 {
                causes.invalid(&at, amount, "must be an integer");
            }
        }
    }
    let limit = |resource: &str| resources.get("limits").and_then(|limits| limits.get(resource));
    for (resource, request) in doc::entries(resources, "requests") {
        let shown = |limit: &Tree| limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
        match limit(resource) {
            Some(limit) if !overcommits(resource) && quantity(request) != quantity(limit) => {
                let why = format!("must be equal to {resource} limit of {}", shown(limit));
                causes.invalid(&at.child("requests"), request, &why);
            }
            Some(limit) if quantity(request) > quantity(limit) => {
                let why = format!("must be less than or equal to {resource} limit of {}", shown(limit));
                causes.invalid(&at.child("requests"), request, &why);
            }
            None if !overcommits(resource) => {
                causes.required(&at.child("limits"), "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
}

fn name(resource: &str, at: &At, causes: &mut Causes) {
    let wrong = names::qualified(resource);
    wrong.iter().for_each(|why| causes.invalid_text(at, resource, why));
    if !wrong.is_empty() {
        return;
    }
    let standard = matches!(resource, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(resource);
    if !resource.contains('/') && !standard {
        causes.invalid_text(at, resource, "must be a standard resource for containers");
    } else if !is_native(resource) && !is_extended(resource) {
        causes.invalid_text(at, resource, "doesn't follow extended resource name standard");
    }
}

fn is_huge_pages(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

/// Without a domain, or of one of upstream's.
fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

/// Devices and their like, which come in whole pieces.
fn is_extended(resource: &str) -> bool {
    !is_native(resource) && !resource.starts_with("requests.")
}

/// More may be promised than there is.
fn overcommits(resource: &str) -> bool {
    is_native(resource) && !is_huge_pages(resource)
}
