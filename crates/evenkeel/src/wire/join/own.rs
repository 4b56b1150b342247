//! What a server does for joining beside answering: it keeps the token that its administrator copies, and tells the API
//! server whose certificates hold no longer.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use api::Snapshot;
use base::{Chain, SmolStr};
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::error;
use view::{Client, Drain, View};

use super::judge::Offered;
use super::records::{Records, machine_of, machines_watched, secrets};
use crate::pki::{self, Access, Lineage, Role, TokenText, hash_of_ca};

/// Sees to it that the token in a file lets machines join: the operator's, that of an earlier start, or a new one.
pub async fn own_token(
    records: &Records,
    path: &Path,
    (given, file): (Option<&str>, Option<&Path>),
    (ca_pem, lineage): (&str, &Lineage),
    now: Timestamp,
) -> Result<()> {
    let given = match (given, file) {
        (Some(token), _) => Some(token.to_owned()),
        (None, Some(file)) => Some(std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?),
        (None, None) => None,
    };
    let given = given.map(|text| text.trim().to_owned());
    let given = given.map(|text| TokenText::parse(&text).map_or(text, |token| token.secret));
    let known = |kept: &TokenText| kept.trusts(ca_pem) || lineage.holds(&kept.ca_hash);
    let kept = pki::read(path)?.and_then(|text| TokenText::parse(&text).ok()).filter(known);
    let secret = given.or_else(|| kept.as_ref().map(|kept| kept.secret.clone()));
    let (role, secret) = match (records.offered(secret.as_deref(), "", now).await?, secret) {
        (Offered::Valid(role), Some(secret)) => (role, secret),
        (_, secret) => (Role::Server, records.create(Role::Server, secret, None, "of the servers", now).await?),
    };
    let text = TokenText { ca_hash: hash_of_ca(ca_pem), role, secret };
    if kept.is_none_or(|kept| kept != text) {
        pki::write(path, format!("{}\n", text.reveal()).as_bytes(), Access::Secret)?;
    }
    Ok(())
}

/// Has the token in a file name the authority that signs now.
pub fn retarget(path: &Path, ca_pem: &str) -> Result<()> {
    let Some(kept) = pki::read(path)?.and_then(|text| TokenText::parse(&text).ok()) else { return Ok(()) };
    let text = TokenText { ca_hash: hash_of_ca(ca_pem), ..kept.clone() };
    if kept != text {
        pki::write(path, format!("{}\n", text.reveal()).as_bytes(), Access::Secret)?;
    }
    Ok(())
}

/// Follows the records of machines: those that were removed are nobody any more.
pub async fn revocations(client: Client, revoked: watch::Sender<BTreeSet<SmolStr>>, drain: Drain) {
    let view = View::start(&client, vec![machines_watched()], &drain);
    let mut snapshots = view.subscribe();
    loop {
        let now = removed(&snapshots.borrow_and_update());
        revoked.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        match drain.run_until_cancelled(snapshots.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

fn removed(snapshot: &Snapshot) -> BTreeSet<SmolStr> {
    let mut names = BTreeSet::new();
    for object in snapshot.stream(&secrets()).iter() {
        match machine_of(object) {
            Ok(record) => {
                names.extend(record.removed.keys().map(|machine| SmolStr::from(machine.uri())));
                // Certificates that were signed on request name no machine.
                names.extend(record.machine.is_none().then(|| SmolStr::from(format!("system:node:{}", record.node))));
            }
            Err(failure) => error!(error = %Chain(&failure), "a machine that was removed may still be let in"),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{Records, own_token, revocations};
    use crate::pki::{Lineage, MachineId, Role, TokenText};
    use crate::wire::join::registrar::{Applicant, Only, Registrar};
    use base::SmolStr;
    use jiff::Timestamp;
    use std::collections::BTreeSet;
    use std::time::Duration;
    use tokio::sync::watch;
    use view::Drain;
    use view::fake::FakeApi;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[tokio::test]
    async fn the_servers_token_is_drawn_once_and_the_operators_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let records = Records::new(FakeApi::new().client());
        let none = Lineage::default();
        let text = || TokenText::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for _ in 0..2 {
            own_token(&records, &path, (None, None), ("CA", &none), NOW).await.unwrap();
            assert_eq!(records.tokens(NOW).await.unwrap().len(), 1);
        }
        let drawn = text();
        assert!(drawn.trusts("CA") && drawn.role == Role::Server);
        own_token(&records, &path, (Some("mine"), None), ("CA", &none), NOW).await.unwrap();
        assert_eq!(text().secret, "mine");
        // One that exists already is not made again, whatever it is for.
        let agent = records.create(Role::Agent, None, None, "", NOW).await.unwrap();
        let before = records.tokens(NOW).await.unwrap().len();
        own_token(&records, &path, (Some(&agent), None), ("CA", &none), NOW).await.unwrap();
        assert_eq!((records.tokens(NOW).await.unwrap().len(), text().role), (before, Role::Agent));
    }

    #[tokio::test]
    async fn a_machine_that_was_removed_is_revoked_as_soon_as_its_record_says_so() {
        let (api, drain) = (FakeApi::new(), Drain::new());
        let registrar = Registrar::new(api.client());
        let machine: MachineId = serde_json::from_value("1".into()).unwrap();
        let who = Applicant { node: "n", machine: &machine, role: Role::Agent, addresses: &[] };
        registrar.register_own(who, NOW).await.unwrap();
        let (sender, mut revoked) = watch::channel(BTreeSet::new());
        let following = tokio::spawn(revocations(api.client(), sender, drain.clone()));
        registrar.remove("n", Only::Whoever, NOW).await.unwrap();
        let names = [SmolStr::from(machine.uri()), SmolStr::from("system:node:n")];
        let gone = revoked.wait_for(|revoked| names.iter().all(|name| revoked.contains(name)));
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the record is followed").unwrap();
        drain.cancel();
        following.await.unwrap();
    }
}
