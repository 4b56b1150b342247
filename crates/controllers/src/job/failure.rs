//! `podFailurePolicy`: what a failed pod means by its exit codes and conditions. The first rule that matches decides.

use api::Tree;

use super::Run;
use crate::kit::pod::PodRef;
use crate::kit::value::{list, text};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Count,
    Ignore,
    FailIndex,
    /// With the message of the Job's condition.
    FailJob(String),
}

impl Run<'_> {
    pub fn failure_action(&self, pod: &PodRef) -> Action {
        if pod.phase() != "Failed" {
            return Action::Count;
        }
        for (at, rule) in list(&self.tree, "/spec/podFailurePolicy/rules").iter().enumerate() {
            let why = match rule.get("onExitCodes") {
                Some(codes) if !codes.is_null() => exit_code(pod, codes),
                _ => condition(pod, list(rule, "/onPodConditions")),
            };
            let Some(why) = why else { continue };
            return match text(rule, "/action") {
                "Ignore" => Action::Ignore,
                "FailIndex" => Action::FailIndex,
                "FailJob" => Action::FailJob(format!("{why} matching FailJob rule at index {at}")),
                _ => Action::Count,
            };
        }
        Action::Count
    }
}

fn exit_code(pod: &PodRef, codes: &Tree) -> Option<String> {
    let status = pod.pod.status.as_ref()?;
    let named = text(codes, "/containerName");
    let values: Vec<i64> = list(codes, "/values").iter().filter_map(Tree::as_i64).collect();
    let inside = text(codes, "/operator") == "In";
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    for container in all.filter(|container| named.is_empty() || container.name == named) {
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        let code = ended.map(|ended| i64::from(ended.exit_code)).filter(|code| *code != 0);
        if let Some(code) = code.filter(|code| values.contains(code) == inside) {
            return Some(format!(
                "Container {} for pod {} failed with exit code {code}",
                container.name, pod.object.key
            ));
        }
    }
    None
}

fn condition(pod: &PodRef, patterns: &[Tree]) -> Option<String> {
    let matching = |pattern: &&Tree| {
        let wanted = pattern["status"].as_str().unwrap_or("True");
        pod.condition(text(pattern, "/type")).is_some_and(|(status, _)| status == wanted)
    };
    let kind = text(patterns.iter().find(matching)?, "/type").to_owned();
    Some(format!("Pod {} has condition {kind}", pod.object.key))
}
