//! Field selectors over served bytes: one value is found by scanning, without a tree.

use std::fmt;

use api::{FieldSelector, Kind, Object, Status};
use base::SmolStr;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The text of the scalar at a path of member names, `None` where there is none.
pub(crate) fn field(bytes: &[u8], path: &str) -> Option<SmolStr> {
    let segments: Vec<&str> = path.trim_start_matches('.').split('.').collect();
    let mut found = None;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // The scan stops with an error as soon as the value is known.
    let _ = Seek { path: &segments, found: &mut found }.deserialize(&mut reader);
    found
}

/// Only declared fields may be selected by.
pub(super) fn check(selector: &FieldSelector, kind: &Kind) -> Result<(), Status> {
    for (path, _, _) in &selector.terms {
        let general = matches!(path.as_str(), "metadata.name" | "metadata.namespace");
        let declared = kind.selectable.iter().any(|known| known.trim_start_matches('.') == path.as_str());
        if !general && !declared {
            let gvr = kind.gvr();
            let (version, resource) = (gvr.api_version(), &gvr.resource);
            let what = if gvr.group.is_empty() { format!("/{version}") } else { version };
            let message = format!(
                "Unable to find {:?} that match label selector \"\", field selector {:?}: field label not supported: {path}",
                format!("{what}, Resource={resource}"),
                selector.to_string(),
            );
            return Err(Status::bad_request(message));
        }
    }
    Ok(())
}

pub(super) fn matches(selector: &FieldSelector, object: &Object) -> bool {
    selector.terms.is_empty() || selector.matches(|path| Some(value(object, path)))
}

/// An absent field counts as its zero value.
fn value(object: &Object, path: &str) -> SmolStr {
    match path {
        "metadata.name" => object.key.name.clone(),
        "metadata.namespace" => object.key.namespace.clone(),
        "spec.unschedulable" | "spec.hostNetwork" => or(object, path, "false"),
        "status.successful" => or(object, "status.succeeded", "0"),
        "status.replicas" => or(object, path, "0"),
        "source" => or(object, "source.component", ""),
        // Events of both groups are stored in the core group's words.
        "reportingController" => or(object, "reportingComponent", ""),
        path if path.starts_with("regarding.") => or(object, &path.replacen("regarding", "involvedObject", 1), ""),
        path => or(object, path, ""),
    }
}

fn or(object: &Object, path: &str, absent: &'static str) -> SmolStr {
    field(&object.bytes, path).unwrap_or(SmolStr::new_static(absent))
}

/// Walks down one path; everything beside it is skipped.
struct Seek<'a> {
    path: &'a [&'a str],
    found: &'a mut Option<SmolStr>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((head, rest)) = self.path.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == *head {
                map.next_value_seed(Seek { path: rest, found: self.found })?;
                return Err(A::Error::custom("found"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if self.path.is_empty() {
            *self.found = Some(text.into());
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn values_are_found_by_path() {
        let bytes = br#"{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"list":[1,{"a":2}],"node":"n\"1","on":true,"n":3}}"#;
        let check = |path: &str, want: Option<&str>| assert_eq!(field(bytes, path).as_deref(), want, "{path}");
        check("metadata.name", Some("a"));
        check(".spec.node", Some("n\"1"));
        check("spec.on", Some("true"));
        check("spec.n", Some("3"));
        check("spec.list", None);
        check("spec.absent", None);
        check("status.phase", None);
    }
}
