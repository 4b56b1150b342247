//! `evenkeel backup list`: what each target holds, how old it is, and whether a restore of it was proven.

use anyhow::{Context, Result};
use base::Clock;

use crate::cli::output::{age, bytes, table};
use crate::layout::Layout;
use crate::wire::backup::{BUNDLES_PATH, Listing};
use crate::wire::{SystemClock, admin};

pub async fn run(layout: &Layout, json: bool) -> Result<()> {
    let listings = listings(layout).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&listings)?);
        return Ok(());
    }
    for listing in &listings {
        print!("{}", text(listing, SystemClock.now()));
    }
    Ok(())
}

/// What the running server's targets hold.
pub async fn listings(layout: &Layout) -> Result<Vec<Listing>> {
    let answer = admin::ask(layout, http::Method::GET, BUNDLES_PATH).await.context("ask the running server")?;
    let body = answer.done()?.context("the server lists nothing")?;
    serde_json::from_slice(&body).context("read the server's answer")
}

fn text(listing: &Listing, now: jiff::Timestamp) -> String {
    let head = format!("{} ({})\n", listing.target, listing.kind);
    if let Some(error) = &listing.error {
        return format!("{head}  cannot be read: {error}\n");
    }
    if listing.bundles.is_empty() {
        return format!("{head}  no bundle yet\n");
    }
    let rows: Vec<Vec<String>> = listing
        .bundles
        .iter()
        .rev()
        .map(|one| {
            let proven = match one.proven {
                Some(true) => "proven",
                Some(false) => "FAILED",
                None => "unproven",
            };
            let old = age(now.duration_since(one.made).as_secs());
            vec![one.name.to_string(), old, bytes(one.bytes), proven.to_owned()]
        })
        .collect();
    head + &table(&["BUNDLE", "AGE", "SIZE", "RESTORE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::wire::backup::Listing;

    #[test]
    fn a_list_says_what_was_proven() {
        let listing: Listing = serde_json::from_str(
            r#"{"target": "/b", "kind": "folder", "error": null, "bundles": [
                {"name": "evenkeel-20260101t000000z-r7.bundle", "made": "2026-01-01T00:00:00Z", "bytes": 2000000, "proven": true},
                {"name": "evenkeel-20260101t060000z-r9.bundle", "made": "2026-01-01T06:00:00Z", "bytes": 2000000, "proven": null}]}"#,
        )
        .unwrap();
        let said = text(&listing, "2026-01-01T07:00:00Z".parse().unwrap());
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[2], "evenkeel-20260101t060000z-r9.bundle   60m   2.0 MB   unproven");
        assert_eq!(lines[3], "evenkeel-20260101t000000z-r7.bundle   7h    2.0 MB   proven");
    }
}
