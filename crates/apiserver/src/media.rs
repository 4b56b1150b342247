//! Content negotiation: what `Accept` asks for and what `Content-Type` says.

use api::{Reason, Status};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How a document is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

/// What of a document is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Whole,
    Table,
    /// `PartialObjectMetadata`, or the list of it.
    Partial,
}

/// A negotiated answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    pub encoding: Encoding,
    pub shape: Shape,
    /// `;stream=watch` was asked for; repeated in the answer's type.
    pub stream: bool,
}

/// One clause of an `Accept` header: a media type and its parameters.
#[derive(Debug)]
pub struct Clause<'a> {
    pub media_type: &'a str,
    pub params: Vec<(&'a str, &'a str)>,
}

/// The body of a patch, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchBody {
    Json,
    Merge,
    Strategic,
    Apply,
}

// === impl Encoding ===

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Yaml => YAML,
            Encoding::Protobuf => PROTOBUF,
        }
    }

    fn parse(media_type: &str) -> Option<Encoding> {
        match media_type {
            JSON | "*/*" | "application/*" => Some(Encoding::Json),
            YAML => Some(Encoding::Yaml),
            PROTOBUF => Some(Encoding::Protobuf),
            _ => None,
        }
    }

    /// How a request body is written. An absent type means JSON.
    pub fn of_body(headers: &HeaderMap) -> Result<Encoding, Status> {
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Encoding::Json) };
        let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match media_type.to_ascii_lowercase().as_str() {
            JSON => Ok(Encoding::Json),
            YAML => Ok(Encoding::Yaml),
            PROTOBUF => Ok(Encoding::Protobuf),
            _ => Err(unsupported(&[JSON, YAML, PROTOBUF])),
        }
    }
}

// === impl PatchBody ===

impl PatchBody {
    /// Custom resources have no strategic merge.
    pub fn of_body(headers: &HeaderMap, custom: bool) -> Result<PatchBody, Status> {
        let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = value.split(';').next().unwrap_or_default().trim();
        match media_type {
            "application/json-patch+json" => Ok(PatchBody::Json),
            "application/merge-patch+json" => Ok(PatchBody::Merge),
            "application/strategic-merge-patch+json" if !custom => Ok(PatchBody::Strategic),
            "application/apply-patch+yaml" => Ok(PatchBody::Apply),
            _ => Err(unsupported(if custom { &PATCHES_CUSTOM } else { &PATCHES })),
        }
    }
}

const PATCHES_CUSTOM: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

fn unsupported(known: &[&str]) -> Status {
    let known = known.join(", ");
    let message = format!("the body of the request was in an unknown format - accepted media types include: {known}");
    Status::new(Reason::UnsupportedMediaType, message)
}

// === impl Accept ===

impl Accept {
    /// The first clause, by quality then order, that this API can answer.
    pub fn of(headers: &HeaderMap) -> Result<Accept, Status> {
        let text = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if text.is_empty() {
            return Ok(Accept::default());
        }
        clauses(text).iter().find_map(Accept::of_clause).ok_or_else(not_acceptable)
    }

    /// As [`Accept::of`], for a stream: YAML has no frames, so there is no stream of it.
    pub fn of_stream(headers: &HeaderMap) -> Result<Accept, Status> {
        Accept::of(headers).and_then(|accept| match accept.encoding {
            Encoding::Json | Encoding::Protobuf => Ok(accept),
            Encoding::Yaml => Err(not_acceptable()),
        })
    }

    fn of_clause(clause: &Clause<'_>) -> Option<Accept> {
        let encoding = Encoding::parse(clause.media_type)?;
        let stream = clause.param("stream") == Some("watch");
        let shape = match clause.param("as") {
            None | Some("") => Shape::Whole,
            Some(kind) => {
                let known = clause.param("g") == Some("meta.k8s.io") && clause.param("v") == Some("v1");
                match kind {
                    "Table" if known && encoding != Encoding::Protobuf => Shape::Table,
                    "PartialObjectMetadata" | "PartialObjectMetadataList" if known => Shape::Partial,
                    _ => return None,
                }
            }
        };
        Some(Accept { encoding, shape, stream })
    }

    /// For errors: the encoding asked for, JSON where that is not possible.
    pub fn for_error(headers: &HeaderMap) -> Encoding {
        Accept::of(headers).map(|accept| accept.encoding).unwrap_or_default()
    }
}

fn not_acceptable() -> Status {
    let message = format!("only the following media types are accepted: {JSON}, {YAML}, {PROTOBUF}");
    Status::new(Reason::NotAcceptable, message)
}

impl Clause<'_> {
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The clauses of an `Accept` header, best quality first; equal qualities keep their order.
pub fn clauses(text: &str) -> Vec<Clause<'_>> {
    let mut found: Vec<(u32, Clause<'_>)> = text.split(',').filter_map(clause).collect();
    found.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    found.into_iter().map(|(_, clause)| clause).collect()
}

fn clause(text: &str) -> Option<(u32, Clause<'_>)> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
    let params: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let quality = params.iter().find(|(key, _)| *key == "q").and_then(|(_, value)| value.parse::<f32>().ok());
    let quality = quality.map_or(1000, |quality| (quality.clamp(0.0, 1.0) * 1000.0) as u32);
    (quality > 0).then_some((quality, Clause { media_type, params }))
}

#[cfg(test)]
mod tests {
    use super::{Accept, Encoding, Shape};
    use http::HeaderMap;

    fn check(accept: &str, want: Option<(Encoding, Shape)>) {
        let mut headers = HeaderMap::new();
        headers.insert("accept", accept.parse().unwrap());
        let got = Accept::of(&headers).ok().map(|accept| (accept.encoding, accept.shape));
        assert_eq!(got, want, "{accept}");
    }

    #[test]
    fn accept_picks_the_first_clause_that_can_be_served() {
        check("*/*", Some((Encoding::Json, Shape::Whole)));
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some((Encoding::Json, Shape::Table)));
        check("application/json;as=Table;v=v9;g=meta.k8s.io, application/json", Some((Encoding::Json, Shape::Whole)));
        check("application/vnd.kubernetes.protobuf, */*", Some((Encoding::Protobuf, Shape::Whole)));
        check("application/json;q=0.5, application/yaml", Some((Encoding::Yaml, Shape::Whole)));
        check("text/html, application/xml;q=0.9", None);
        check(
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json",
            Some((Encoding::Json, Shape::Whole)),
        );
    }
}
