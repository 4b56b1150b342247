//! Garbage of the runtime: images that no container uses, and containers that ended before the latest of their name.
//!
//! The choice is pure. What is pinned, used or fresh stays; of the rest the longest unused goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::context::Context;
use crate::limits;
use crate::machine::Disk;
use crate::pods::Pods;
use crate::runtime::{Container, ContainerState, Image, RuntimeError, labels};

/// When images were first seen and last used; by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct History(BTreeMap<String, Seen>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    first: Timestamp,
    used: Option<Timestamp>,
}

pub struct Collector {
    context: Arc<Context>,
    history: History,
}

impl History {
    fn note(&mut self, images: &[Image], containers: &[Container], now: Timestamp) {
        self.0.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let seen = self.0.entry(image.id.clone()).or_insert(Seen { first: now, used: None });
            if is_used(image, containers) {
                seen.used = Some(now);
            }
        }
    }

    /// Images to remove so that `bytes` become free, in order. May be less than that.
    fn choose<'a>(&self, images: &'a [Image], containers: &[Container], bytes: u64, now: Timestamp) -> Vec<&'a Image> {
        let age = |seen: &Seen| std::time::Duration::try_from(now.duration_since(seen.first)).unwrap_or_default();
        let unused = images.iter().filter(|image| !image.pinned && !is_used(image, containers));
        let mut unused: Vec<(&Image, &Seen)> = unused
            .filter_map(|image| Some((image, self.0.get(&image.id)?)))
            .filter(|(_, seen)| limits::IMAGE_AGE_MIN <= age(seen))
            .collect();
        unused.sort_by_key(|(_, seen)| (seen.used, seen.first));
        let mut freed = 0u64;
        let enough = |(image, _): &(&Image, &Seen)| {
            let before = freed;
            freed = freed.saturating_add(image.size_bytes);
            before < bytes
        };
        unused.into_iter().take_while(enough).map(|(image, _)| image).collect()
    }
}

/// By id, tag or digest: runtimes name the image of a container in any of these ways.
fn is_used(image: &Image, containers: &[Container]) -> bool {
    let names: BTreeSet<&str> =
        std::iter::once(&image.id).chain(&image.tags).chain(&image.digests).map(String::as_str).collect();
    containers.iter().any(|one| names.contains(one.image.as_str()) || names.contains(one.image_ref.as_str()))
}

/// Bytes to free so that a disk filled to `high` percent comes down to `low`.
fn excess(disk: &Disk, high: u32, low: u32) -> u64 {
    let used = disk.total_bytes.saturating_sub(disk.available_bytes);
    let share = |percent: u32| disk.total_bytes / 100 * u64::from(percent);
    if share(high) <= used { used.saturating_sub(share(low)) } else { 0 }
}

impl Collector {
    pub fn new(context: Arc<Context>) -> Collector {
        Collector { context, history: History::default() }
    }

    /// Keeps images from filling their disk, where that is known, and learns which are new. False without an answer of
    /// the runtime.
    pub async fn keep_below(&mut self, disk: Option<&Disk>) -> bool {
        let config = &self.context.config;
        let wanted = disk.map_or(0, |disk| excess(disk, config.image_gc_high, config.image_gc_low));
        match self.free(wanted).await {
            Ok(freed) if freed < wanted => {
                let message = format!(
                    "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only \
                     found {freed} bytes eligible to free."
                );
                self.context.events.node(&self.context.config.node_name, true, "FreeDiskSpaceFailed", &message);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "images were not collected");
                return false;
            }
        }
        true
    }

    /// Before a pod has to leave for the disk: everything that nobody uses.
    pub async fn free_everything(&mut self, pods: &Pods) {
        if let Err(error) = self.remove_dead(pods).await {
            tracing::warn!(%error, "dead containers were not removed");
        }
        if let Err(error) = self.free(u64::MAX).await {
            tracing::warn!(%error, "unused images were not removed");
        }
    }

    /// Removes images of at least so many bytes, where there are as many; answers how many it were.
    async fn free(&mut self, bytes: u64) -> Result<u64, RuntimeError> {
        let runtime = &self.context.runtime;
        let images = runtime.list_images().await?;
        let containers = runtime.list_containers(&BTreeMap::new()).await?;
        let now = self.context.ports.clock.now();
        self.history.note(&images, &containers, now);
        let mut freed = 0u64;
        for image in self.history.choose(&images, &containers, bytes, now) {
            tracing::info!(image = %image.id, tags = ?image.tags, bytes = image.size_bytes, "removing an unused image");
            match runtime.remove_image(&image.id).await {
                Ok(()) => freed = freed.saturating_add(image.size_bytes),
                Err(error) => tracing::warn!(image = %image.id, %error, "image was not removed"),
            }
        }
        Ok(freed)
    }

    /// The latest of a name stays: its exit may still have to be read.
    async fn remove_dead(&self, pods: &Pods) -> Result<(), RuntimeError> {
        let latest: BTreeMap<(String, String), u32> = pods
            .all()
            .iter()
            .flat_map(|view| {
                let uid = view.pod.metadata.uid.clone().unwrap_or_default();
                let containers = view.containers.iter();
                containers.map(|(name, one)| ((uid.clone(), name.clone()), one.attempt)).collect::<Vec<_>>()
            })
            .collect();
        let label = |container: &Container, name: &str| container.labels.get(name).cloned().unwrap_or_default();
        for container in self.context.runtime.list_containers(&BTreeMap::new()).await? {
            let place = (label(&container, labels::POD_UID), label(&container, labels::CONTAINER_NAME));
            let old = latest.get(&place).is_some_and(|attempt| container.attempt < *attempt);
            if old && container.state == ContainerState::Exited {
                self.context.runtime.remove_container(&container.id).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// `id bytes`, each with the tag `id:1`; `*` pins it.
    fn images(script: &str) -> Vec<Image> {
        let one = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Image {
                id: words[0].trim_end_matches('*').to_owned(),
                tags: vec![format!("{}:1", words[0].trim_end_matches('*'))],
                size_bytes: words[1].parse().unwrap(),
                pinned: words[0].ends_with('*'),
                ..Image::default()
            }
        };
        script.lines().map(one).collect()
    }

    fn container(image: &str) -> Container {
        Container { image: image.to_owned(), ..Container::default() }
    }

    #[test]
    fn the_longest_unused_goes_first_until_there_is_room() {
        let images = images("never 10\nearly 10\nlate 10\nbusy 10\nkept* 10");
        let mut history = History::default();
        history.note(&images, &[container("early:1"), container("late")], at(0));
        history.note(&images, &[container("late"), container("busy")], at(60));
        let busy = [container("busy:1")];
        let choose = |bytes: u64, second: i64| -> String {
            let chosen = history.choose(&images, &busy, bytes, at(second));
            chosen.iter().map(|image| image.id.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(choose(1, 120), "never");
        assert_eq!(choose(11, 120), "never early");
        assert_eq!(choose(u64::MAX, 120), "never early late");
        assert_eq!(choose(0, 120), "");
        assert_eq!(choose(u64::MAX, 119), "", "fresh images are about to be used");
    }

    #[test]
    fn what_lies_there_at_the_start_is_fresh_from_then() {
        let mut history = History::default();
        history.note(&images("old 10"), &[], at(1000));
        let all = images("old 10\nnew 10");
        history.note(&all, &[], at(1060));
        let choose = |second: i64| history.choose(&all, &[], u64::MAX, at(second)).len();
        assert_eq!([1000, 1119, 1120, 1180].map(choose), [0, 0, 1, 2]);
    }

    #[test]
    fn a_full_disk_comes_down_to_the_low_mark() {
        let disk = |used: u64| Disk { total_bytes: 1000, available_bytes: 1000 - used, ..Disk::default() };
        let free = [0, 849, 850, 1000].map(|used| excess(&disk(used), 85, 80));
        assert_eq!(free, [0, 0, 50, 200]);
    }

    #[test]
    fn an_image_that_comes_back_is_fresh_again() {
        let all = images("a 1");
        let mut history = History::default();
        history.note(&all, &[], at(0));
        history.note(&[], &[], at(60));
        history.note(&all, &[], at(120));
        assert!(history.choose(&all, &[], 1, at(200)).is_empty());
    }
}
