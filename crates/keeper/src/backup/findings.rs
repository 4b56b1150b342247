//! What somebody should know about the backups, from plain facts.

use serde::{Deserialize, Serialize};

/// A bundle that is smaller than the one before it by more than this is looked at.
pub const SHRUNK_PERCENT: u64 = 20;
/// People, or a kit for them, that can open a bundle.
const PEOPLE_MIN: usize = 2;

/// How large a bundle is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub objects: u64,
    pub bytes: u64,
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Recipients, passphrases and the kit; not the cluster's own key.
    pub people: usize,
    pub kit_on_server: bool,
    /// Some target is not on a server of the cluster.
    pub offsite: bool,
    pub last: Option<Size>,
    pub before: Option<Size>,
    /// Key files that the last bundle lacks.
    pub missing: Vec<String>,
    /// Why no bundle could be made.
    pub failure: Option<String>,
    /// Targets that failed, with why.
    pub failed_targets: Vec<(String, String)>,
    /// Applications whose hooks failed, with why.
    pub failed_apps: Vec<(String, String)>,
    /// Some bundle was proven.
    pub proven: bool,
    /// Checks that the last proof failed.
    pub failed_checks: Vec<String>,
}

/// A stable code, a sentence, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub code: String,
    pub sentence: String,
    pub advice: String,
}

/// Every finding, the most pressing first.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |code: &str, sentence: String, advice: &str| {
        found.push(Finding { code: code.to_owned(), sentence, advice: advice.to_owned() });
    };
    if let Some(failure) = &facts.failure {
        add("BACKUP_FAILED", format!("no backup could be made: {failure}"), "see the server's log");
    }
    if !facts.failed_checks.is_empty() {
        let sentence = format!("the last proof of a backup failed: {}", facts.failed_checks.join(", "));
        add("BACKUP_PROOF_FAILED", sentence, "evenkeel backup list; the evidence says what was missing");
    }
    if !facts.missing.is_empty() {
        let sentence = format!("the last backup lacks {}", facts.missing.join(", "));
        add("BACKUP_INCOMPLETE", sentence, "bring these files back below the data folder, then: evenkeel backup");
    }
    for (target, why) in &facts.failed_targets {
        let sentence = format!("the last backup did not reach {target}: {why}");
        add("BACKUP_TARGET_FAILED", sentence, "the other targets have it; mend this one");
    }
    for (app, why) in &facts.failed_apps {
        let sentence = format!("what {app} keeps is not in the last backup: {why}");
        add("BACKUP_APP_FAILED", sentence, "mend its hook, then: evenkeel backup");
    }
    if let Some(sentence) = shrunk(facts.before, facts.last) {
        add("BACKUP_SHRUNK", sentence, "look whether something was deleted that should be there");
    }
    if !facts.proven {
        let sentence = "no backup was proven by a restore yet".to_owned();
        add("BACKUP_UNPROVEN", sentence, "evenkeel backup prove");
    }
    if facts.people < PEOPLE_MIN {
        let sentence = format!("{} of two people or more can open the backups", facts.people);
        add(
            "BACKUP_RECIPIENTS_FEW",
            sentence,
            "evenkeel backup --new-recipient, then --backup-recipient on the server",
        );
    }
    if facts.kit_on_server {
        let sentence = "the recovery kit still lies on the machine that it is to recover".to_owned();
        add("BACKUP_KIT_ON_SERVER", sentence, "copy server/recovery-kit.txt to paper or a safe, then delete it");
    }
    if !facts.offsite {
        let sentence = "no backup is kept elsewhere than on the servers".to_owned();
        add("BACKUP_OFFSITE_MISSING", sentence, "name a target elsewhere with --backup-s3");
    }
    found
}

/// A sentence where the newer one lost more than [`SHRUNK_PERCENT`].
fn shrunk(before: Option<Size>, last: Option<Size>) -> Option<String> {
    let (before, last) = (before?, last?);
    let fell = |from: u64, to: u64| to * 100 < from * (100 - SHRUNK_PERCENT);
    if fell(before.objects, last.objects) {
        return Some(format!("the last backup holds {} objects, the one before {}", last.objects, before.objects));
    }
    let smaller = fell(before.bytes, last.bytes);
    smaller.then(|| format!("the last backup has {} bytes, the one before {}", last.bytes, before.bytes))
}

#[cfg(test)]
mod tests {
    use super::{Facts, Size, findings};

    fn codes(facts: &Facts) -> Vec<String> {
        findings(facts).into_iter().map(|finding| finding.code).collect()
    }

    fn well() -> Facts {
        Facts { people: 2, offsite: true, proven: true, ..Facts::default() }
    }

    #[test]
    fn nothing_is_found_where_all_is_well() {
        assert!(codes(&well()).is_empty());
    }

    #[test]
    fn each_fact_has_its_finding() {
        let size = |objects| Some(Size { objects, bytes: 1000 });
        let cases = [
            (Facts { people: 1, ..well() }, "BACKUP_RECIPIENTS_FEW"),
            (Facts { kit_on_server: true, ..well() }, "BACKUP_KIT_ON_SERVER"),
            (Facts { offsite: false, ..well() }, "BACKUP_OFFSITE_MISSING"),
            (Facts { proven: false, ..well() }, "BACKUP_UNPROVEN"),
            (Facts { failure: Some("why".into()), ..well() }, "BACKUP_FAILED"),
            (Facts { missing: vec!["a".into()], ..well() }, "BACKUP_INCOMPLETE"),
            (Facts { failed_checks: vec!["keys".into()], ..well() }, "BACKUP_PROOF_FAILED"),
            (Facts { failed_targets: vec![("s3".into(), "403".into())], ..well() }, "BACKUP_TARGET_FAILED"),
            (Facts { failed_apps: vec![("shop/sql".into(), "exit code 1".into())], ..well() }, "BACKUP_APP_FAILED"),
            (Facts { before: size(100), last: size(79), ..well() }, "BACKUP_SHRUNK"),
        ];
        for (facts, code) in cases {
            assert_eq!(codes(&facts), [code]);
        }
        assert!(codes(&Facts { before: size(100), last: size(80), ..well() }).is_empty(), "a fifth less is no finding");
        let lighter = Facts {
            before: Some(Size { objects: 1, bytes: 1000 }),
            last: Some(Size { objects: 1, bytes: 1 }),
            ..well()
        };
        assert_eq!(codes(&lighter), ["BACKUP_SHRUNK"]);
    }
}
