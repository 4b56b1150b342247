//! The scorecard of a replacement: how long each part took, printed and kept.

use anyhow::{Context, Result};
use api::Key;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use view::Client;

use super::kept::{Kept, config_maps, put};
use super::rack::Workloads;

/// Scorecards that are kept; the oldest go first.
pub const CARDS_MAX: usize = 20;
const NAMESPACE: &str = "kube-system";
const NAME: &str = "evenkeel-scorecards";

/// What came of it.
pub struct Card<'a> {
    pub kept: &'a Kept,
    pub after: Workloads,
}

// === impl Card ===

impl Card<'_> {
    /// The parts in their order, in seconds; None where one end is not known.
    pub fn parts(&self) -> [(&'static str, Option<f64>); 6] {
        let times = &self.kept.times;
        let span = |from: Option<Timestamp>, to: Option<Timestamp>| {
            Some((to?.duration_since(from?).as_secs_f64().max(0.0) * 10.0).round() / 10.0)
        };
        [
            ("detect", span(times.last_word, times.noticed)),
            ("decide", span(times.noticed, times.decided)),
            ("install", span(times.decided, times.asked)),
            ("join", span(times.asked, times.joined)),
            ("catch-up", span(times.joined, times.caught_up)),
            ("verify", span(times.caught_up, times.verified)),
        ]
    }

    pub fn total(&self) -> Option<f64> {
        let times = &self.kept.times;
        Some(times.verified?.duration_since(times.decided?).as_secs_f64())
    }

    pub fn text(&self) -> String {
        let part = |(name, seconds): (&str, Option<f64>)| match seconds {
            Some(seconds) => format!("{name} {seconds:.1} s"),
            None => format!("{name} unknown"),
        };
        let parts = self.parts().map(part).join(", ");
        format!(
            "scorecard: {} replaced in {:.1} s ({parts}); {} of {} pods of workloads ready, {} of {} before; fenced: {}",
            self.kept.node,
            self.total().unwrap_or_default(),
            self.after.ready,
            self.after.wanted,
            self.kept.before.ready,
            self.kept.before.wanted,
            self.kept.fenced
        )
    }

    pub fn tree(&self) -> Value {
        let seconds: Map<String, Value> =
            self.parts().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        json!({
            "verb": "replace", "node": self.kept.node, "role": self.kept.role, "seconds": seconds, "total": self.total(),
            "fenced": self.kept.fenced, "before": self.kept.before, "after": self.after, "times": self.kept.times,
        })
    }
}

/// Keeps a scorecard beside the earlier ones.
pub async fn store(client: &Client, card: &Card<'_>) -> Result<()> {
    let key = Key::new(NAMESPACE, NAME);
    let earlier = match client.get(&config_maps(), &key).await {
        Ok(found) => found["data"].as_object().cloned().unwrap_or_default(),
        Err(error) if error.is_not_found() => Map::new(),
        Err(error) => return Err(error).context("read the scorecards"),
    };
    let time = card.kept.times.verified.unwrap_or_default().strftime("%Y%m%dT%H%M%SZ");
    let mut data = Map::from_iter([(format!("{time}.replace.{}", card.kept.node), json!(card.tree().to_string()))]);
    for name in oldest(earlier.keys(), CARDS_MAX - 1) {
        data.insert(name, Value::Null);
    }
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data,
    });
    put(client, &key, &object).await.context("keep the scorecard")
}

/// Names begin with their time: those that go so that this many stay.
fn oldest<'a>(names: impl Iterator<Item = &'a String>, stay: usize) -> Vec<String> {
    let mut names: Vec<String> = names.cloned().collect();
    names.sort();
    names.truncate(names.len().saturating_sub(stay));
    names
}

#[cfg(test)]
mod tests {
    use super::{CARDS_MAX, Card, store};
    use crate::pki::Role;
    use crate::wire::join::judge::{Asked, Machine};
    use crate::wire::replace::{Kept, Workloads};
    use api::{Gvr, Key};
    use jiff::{SignedDuration, Timestamp};
    use view::fake::FakeApi;

    #[tokio::test]
    async fn cards_say_how_long_it_took_and_are_limited() {
        let (api, id) = (FakeApi::new(), serde_json::from_value("1".into()).unwrap());
        let asked = Asked { node: "n", machine: &id, role: Role::Server };
        let mut kept = Kept::of(&Machine::new(None, &asked, &[], Timestamp::UNIX_EPOCH), None);
        for turn in 0..CARDS_MAX + 3 {
            let begin = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(i64::try_from(turn).unwrap());
            let at = |seconds: i64| Some(begin + SignedDuration::from_secs(seconds));
            kept.times.decided = at(0);
            kept.times.asked = at(30);
            kept.times.joined = at(34);
            kept.times.verified = at(60);
            let card = Card { kept: &kept, after: Workloads { wanted: 3, ready: 3 } };
            let text = card.text();
            assert!(text.contains("n replaced in 60.0 s (detect unknown, decide unknown, install 30.0 s"), "{text}");
            store(&api.client(), &card).await.unwrap();
        }
        let found =
            api.get(&Gvr::new("", "v1", "configmaps"), &Key::new("kube-system", "evenkeel-scorecards")).unwrap();
        let names: Vec<&String> = found["data"].as_object().unwrap().keys().collect();
        assert_eq!(names.len(), CARDS_MAX);
        assert!(names[0].starts_with("19700101T03"), "the oldest went: {names:?}");
    }
}
