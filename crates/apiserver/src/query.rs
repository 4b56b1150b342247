//! Query parameters, decoded as upstream converts them (`ListOptions`, `CreateOptions`, ... from `url.Values`).

use api::{Cause, FieldSelector, LabelSelector, Propagation, Status};
use base::{Revision, SmolStr};

use admit::FieldValidation;

/// Decoded pairs in the order sent.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// What a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub limit: Option<usize>,
    pub token: String,
    pub version: Option<Revision>,
    pub exact: bool,
    pub not_older: bool,
    pub watch: bool,
    pub bookmarks: bool,
    pub send_initial: Option<bool>,
    pub timeout_seconds: Option<u64>,
}

/// What every write may carry.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: SmolStr,
    pub field_validation: FieldValidation,
}

// === impl Query ===

impl Query {
    pub fn parse(text: Option<&str>) -> Query {
        let pairs = text.map(|text| form_urlencoded::parse(text.as_bytes()).into_owned().collect()).unwrap_or_default();
        Query { pairs }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value unless it is empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Present and neither `false` nor `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_if_given(name).unwrap_or(false)
    }

    pub fn flag_if_given(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.filled(name) else { return Ok(None) };
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

// === impl ListOptions ===

impl ListOptions {
    pub fn parse(query: &Query, watch: bool) -> Result<ListOptions, Status> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default());
        let labels = labels.map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default());
        let fields = fields.map_err(|error| Status::bad_request(error.to_string()))?;
        let limit = query.integer("limit")?.filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok());
        let seconds = query.integer("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        let options = ListOptions {
            labels,
            fields,
            limit,
            token: query.get("continue").unwrap_or_default().to_owned(),
            version: None,
            exact: query.get("resourceVersionMatch") == Some("Exact"),
            not_older: query.get("resourceVersionMatch") == Some("NotOlderThan"),
            watch,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial: query.flag_if_given("sendInitialEvents"),
            timeout_seconds: seconds.and_then(|seconds| u64::try_from(seconds).ok()),
        };
        options.check(query)?;
        Ok(ListOptions { version: version_of(query.filled("resourceVersion"), watch)?, ..options })
    }

    /// `ValidateListOptions` of apimachinery.
    fn check(&self, query: &Query) -> Result<(), Status> {
        let matching = query.filled("resourceVersionMatch");
        let version = query.filled("resourceVersion");
        let forbid = |field: &str, why: &str| Err(invalid_options("ListOptions", "Forbidden", field, why));
        if let Some(initial) = self.send_initial {
            if !self.watch {
                return forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
            if !self.not_older {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return forbid("resourceVersionMatch", why);
            }
            let _ = initial;
            return Ok(());
        }
        let Some(matching) = matching else { return Ok(()) };
        if self.watch {
            return forbid("resourceVersionMatch", "resourceVersionMatch is forbidden for watch");
        }
        if version.is_none() {
            return forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if !self.token.is_empty() {
            return forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
        }
        if !self.exact && !self.not_older {
            let why = format!("{matching:?}: supported values: \"Exact\", \"NotOlderThan\", \"\"");
            return Err(invalid_options("ListOptions", "Unsupported value", "resourceVersionMatch", &why));
        }
        if self.exact && version == Some("0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            return forbid("resourceVersionMatch", why);
        }
        Ok(())
    }
}

fn version_of(text: Option<&str>, watch: bool) -> Result<Option<Revision>, Status> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        if watch {
            let why = format!("{text:?}: {why}");
            return invalid_options("ListOptions", "Invalid value", "resourceVersion", &why);
        }
        Status::bad_request(format!("invalid resource version: {why}"))
    })
}

// === impl WriteOptions ===

impl WriteOptions {
    /// `kind` is the options kind upstream names in its errors: `CreateOptions`.
    pub fn parse(query: &Query, kind: &str, apply: bool) -> Result<WriteOptions, Status> {
        let field_manager = query.get("fieldManager").unwrap_or_default();
        let dry_run = dry_run(query.all("dryRun"), kind)?;
        if field_manager.len() > 128 {
            let why = "may not be more than 128 bytes";
            return Err(invalid_options(kind, "Too long", "fieldManager", why));
        }
        if field_manager.chars().any(|c| c.is_control()) {
            let why = format!("{field_manager:?}: should only contain printable characters");
            return Err(invalid_options(kind, "Invalid value", "fieldManager", &why));
        }
        let force = query.flag_if_given("force");
        if kind == "PatchOptions" {
            if apply && field_manager.is_empty() {
                return Err(invalid_options(kind, "Required value", "fieldManager", "is required for apply patch"));
            }
            if !apply && force.is_some() {
                let why = "may not be specified for non-apply patch";
                return Err(invalid_options(kind, "Forbidden", "force", why));
            }
        }
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let why = format!("{other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"");
                return Err(invalid_options(kind, "Unsupported value", "fieldValidation", &why));
            }
        };
        Ok(WriteOptions { dry_run, field_manager: field_manager.into(), field_validation })
    }
}

/// `dryRun` values: only `All` is known.
pub fn dry_run<'a>(values: impl Iterator<Item = &'a str>, kind: &str) -> Result<bool, Status> {
    let mut dry = false;
    for value in values {
        if value != "All" {
            let why = format!("{value:?}: supported values: \"All\"");
            return Err(invalid_options(kind, "Unsupported value", "dryRun", &why));
        }
        dry = true;
    }
    Ok(dry)
}

pub fn propagation(word: &str) -> Result<Propagation, Status> {
    Propagation::parse(word).ok_or_else(|| {
        let why = format!("{word:?}: supported values: \"Background\", \"Foreground\", \"Orphan\"");
        invalid_options("DeleteOptions", "Unsupported value", "propagationPolicy", &why)
    })
}

/// 422 about an options object, as `apierrors.NewInvalid` words it.
pub fn invalid_options(kind: &str, what: &str, field: &str, why: &str) -> Status {
    let reason = match what {
        "Forbidden" => "FieldValueForbidden",
        "Required value" => "FieldValueRequired",
        "Too long" => "FieldValueTooLong",
        "Unsupported value" => "FieldValueNotSupported",
        _ => "FieldValueInvalid",
    };
    let cause = Cause { reason: reason.to_owned(), message: format!("{what}: {why}"), field: field.to_owned() };
    Status::invalid("meta.k8s.io", kind, "", vec![cause])
}
