//! `/healthz`, `/livez` and `/readyz`, whole, verbose, and check by check.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Response, StatusCode};

use api::Status;

use crate::answer;
use crate::body::Body;
use crate::context::{Context, no_such_resource};
use crate::server::Shared;

/// One named check. `/readyz` never depends on a loop of this binary: those report elsewhere.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    fn name(&self) -> &str;

    /// Counted by `/livez` as well as by `/readyz`.
    fn is_liveness(&self) -> bool {
        false
    }

    /// Shown in `?verbose`, never counted: the loops of this binary.
    fn is_informative(&self) -> bool {
        false
    }

    async fn check(&self) -> Result<(), String>;
}

/// Outcome of one check: name, error, whether it counts.
type Outcome = (String, Result<(), String>, bool);

pub(crate) async fn serve(cx: &Context, path: &str) -> Result<Response<Body>, Status> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let probe = parts.next().unwrap_or_default();
    let single = parts.next().filter(|name| !name.is_empty());
    let outcomes = run(&cx.shared, probe).await;
    if let Some(name) = single {
        let found = outcomes.into_iter().find(|(known, _, _)| known == name).ok_or_else(no_such_resource)?;
        return Ok(match found.1 {
            Ok(()) => answer::text(StatusCode::OK, "ok"),
            Err(why) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        });
    }
    let excluded: Vec<&str> = cx.query.all("exclude").collect();
    let counts = |(name, _, counted): &Outcome| *counted && !excluded.contains(&name.as_str());
    let failed = outcomes.iter().filter(|outcome| counts(outcome)).any(|(_, result, _)| result.is_err());
    if !failed && !cx.query.flag("verbose") {
        return Ok(answer::text(StatusCode::OK, "ok"));
    }
    let mut text = String::new();
    for outcome in &outcomes {
        let (name, result, _) = outcome;
        match result {
            _ if excluded.contains(&name.as_str()) => text.push_str(&format!("[+]{name} excluded: ok\n")),
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(_) if !counts(outcome) => text.push_str(&format!("[-]{name} degraded, not counted\n")),
            Err(_) => text.push_str(&format!("[-]{name} failed: reason withheld\n")),
        }
    }
    let (code, verdict) =
        if failed { (StatusCode::INTERNAL_SERVER_ERROR, "failed") } else { (StatusCode::OK, "passed") };
    text.push_str(&format!("{probe} check {verdict}\n"));
    Ok(answer::text(code, text))
}

async fn run(shared: &Arc<Shared>, probe: &str) -> Vec<Outcome> {
    let store = match shared.deps.store.failure() {
        Some(why) => Err(why),
        None => Ok(()),
    };
    let mut outcomes: Vec<Outcome> = vec![("ping".into(), Ok(()), true), ("store".into(), store, probe == "readyz")];
    if probe == "readyz" {
        let shutdown = if shared.is_leaving() { Err("the server drains".to_owned()) } else { Ok(()) };
        outcomes.push(("shutdown".into(), shutdown, true));
    }
    for check in &shared.deps.checks {
        let asked = probe == "readyz" || check.is_liveness();
        if asked {
            outcomes.push((check.name().to_owned(), check.check().await, !check.is_informative()));
        }
    }
    outcomes
}
