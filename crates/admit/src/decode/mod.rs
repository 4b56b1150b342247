//! Fitting a document to its schema: types are checked, unknown fields found and pruned, spellings made canonical.
//!
//! A built-in kind is decoded as the typed servers do: the first value of a wrong type fails the request (400). A custom
//! resource is read as it is, and wrong types are field errors of validation (422).

mod fit;
mod scalar;

use api::{Kind, Schema, Status, Tree};

use crate::causes::Causes;
use crate::context::bad_request;
use crate::request::{Body, FieldValidation};
pub(crate) use fit::fill_defaults;
use fit::{Fitting, Go};

/// What fitting found beside the document.
#[derive(Debug, Default)]
pub(crate) struct Fitted {
    /// `unknown field "spec.foo"` and `duplicate field "spec.bar"`, in the order found.
    pub(crate) strict: Vec<String>,
    /// Wrong types in custom resources.
    pub(crate) causes: Causes,
}

/// Most unknown fields that one answer names.
const STRICT_ERRORS_MAX: usize = 100;

/// Checks and prunes `tree` in place.
///
/// # Errors
/// The decoder's message for the first value of a wrong type.
pub(crate) fn fit(schema: &Schema, custom: bool, tree: &mut Tree) -> Result<Fitted, String> {
    let mut fitting = Fitting::new(custom);
    let go = Go::of(schema);
    fitting.root(schema, tree, &go)?;
    let mut fitted = Fitted { strict: fitting.unknown, causes: fitting.causes };
    fitted.strict.truncate(STRICT_ERRORS_MAX);
    Ok(fitted)
}

/// A body that claims to be of `kind`: fits it and applies field validation; warnings go to `warnings`.
pub(crate) fn decode(
    kind: &Kind,
    body: &Body,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(Tree, Causes), Status> {
    let mut tree = body.tree.clone();
    check_type_meta(kind, &mut tree)?;
    let failed = |why: &str| {
        let gvk = &kind.gvk;
        bad_request(format!("{} in version {:?} cannot be handled as a {}: {why}", gvk.kind, gvk.version, gvk.kind))
    };
    let fitted = fit(&kind.schema, kind.custom, &mut tree).map_err(|why| failed(&why))?;
    let strict = duplicates(body).chain(fitted.strict).collect();
    if let Some(error) = judge(strict, validation, warnings) {
        return Err(failed(&error));
    }
    Ok((tree, fitted.causes))
}

pub(crate) fn duplicates(body: &Body) -> impl Iterator<Item = String> {
    body.duplicates.iter().map(|path| format!("duplicate field {path:?}"))
}

/// What strict errors mean under a field validation level: an error text, warnings, or nothing.
pub(crate) fn judge(strict: Vec<String>, level: FieldValidation, warnings: &mut Vec<String>) -> Option<String> {
    match level {
        _ if strict.is_empty() => None,
        FieldValidation::Ignore => None,
        FieldValidation::Warn => {
            warnings.extend(strict);
            None
        }
        FieldValidation::Strict => Some(format!("strict decoding error: {}", strict.join(", "))),
    }
}

/// The body must be an object that names the kind of the URL; what it leaves out is filled in.
fn check_type_meta(kind: &Kind, tree: &mut Tree) -> Result<(), Status> {
    let api_version = kind.gvk.api_version();
    let Some(object) = tree.as_object_mut() else {
        let message = format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            scalar::json_type(tree)
        );
        return Err(bad_request(message));
    };
    let said = |name: &str| object.get(name).and_then(Tree::as_str).unwrap_or_default().to_owned();
    let (version, name) = (said("apiVersion"), said("kind"));
    if !version.is_empty() && version != api_version {
        let message =
            format!("the API version in the data ({version}) does not match the expected API version ({api_version})");
        return Err(bad_request(message));
    }
    if !name.is_empty() && name != kind.gvk.kind {
        let (want, have) = (&kind.gvk.kind, &name);
        return Err(bad_request(format!(
            "{have} in version {:?} cannot be handled as a {want}: no kind {have:?} is registered for version {api_version:?}",
            kind.gvk.version
        )));
    }
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.gvk.kind.as_str().into());
    Ok(())
}

/// Where metadata of a custom resource is checked: the built-in description knows ObjectMeta, a CRD does not.
pub(crate) fn object_meta() -> Option<Schema> {
    crate::vocabulary::schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
}
