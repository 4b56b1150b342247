//! Measurements that cost something, each kept for a while: who asks soon after another gets the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::usage::Files;
use crate::limits;
use crate::runtime::{ContainerStats, Runtime, RuntimeError};

/// A value and since when it is known.
struct Kept<T>(tokio::sync::Mutex<Option<(Instant, T)>>);

/// What the runtime says of containers, and what their pods' folders hold.
pub struct Meter {
    runtime: Arc<dyn Runtime>,
    stats: Kept<Arc<Vec<ContainerStats>>>,
    pub folders: Folders,
}

/// By pod.
#[derive(Default)]
pub struct Folders(Mutex<BTreeMap<String, Arc<Kept<Files>>>>);

impl<T> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept(tokio::sync::Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    /// What is known for less than `span`, else what `make` gives; who asks meanwhile waits for it. Failures are not kept.
    async fn get<E>(&self, span: Duration, make: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut kept = self.0.lock().await;
        if let Some((since, value)) = &*kept
            && since.elapsed() < span
        {
            return Ok(value.clone());
        }
        let value = make.await?;
        // Counted from the end: what takes longer than its span would never be of use.
        *kept = Some((Instant::now(), value.clone()));
        Ok(value)
    }

    /// False where nobody would take it any more.
    fn is_of_use(&self, span: Duration) -> bool {
        let Ok(kept) = self.0.try_lock() else { return true };
        kept.as_ref().is_some_and(|(since, _)| since.elapsed() < span)
    }
}

impl Meter {
    pub fn new(runtime: Arc<dyn Runtime>) -> Meter {
        Meter { runtime, stats: Kept::default(), folders: Folders::default() }
    }

    /// Of all containers, at most `STATS_KEPT_FOR` old.
    pub async fn stats(&self) -> Result<Arc<Vec<ContainerStats>>, RuntimeError> {
        let list = async { self.runtime.container_stats(&BTreeMap::new()).await.map(Arc::new) };
        self.stats.get(limits::STATS_KEPT_FOR, list).await
    }
}

impl Folders {
    /// Of one pod, at most `span` old. Walking goes off the task's thread.
    pub async fn get(&self, uid: &str, span: Duration, walk: impl FnOnce() -> Files + Send + 'static) -> Files {
        let kept = {
            let mut all = self.0.lock().expect("no holder of this lock panics");
            all.retain(|_, kept| kept.is_of_use(limits::FOLDERS_KEPT_FOR));
            all.entry(uid.to_owned()).or_default().clone()
        };
        kept.get(span, async { tokio::task::spawn_blocking(walk).await }).await.expect("walking does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering};

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn what_is_known_is_not_made_again_within_its_span() {
        let (kept, made) = (Kept::<u32>::default(), Cell::new(0));
        let make = async || {
            tokio::task::yield_now().await;
            made.set(made.get() + 1);
            Ok::<u32, ()>(made.get())
        };
        assert!(!kept.is_of_use(LONG));
        assert_eq!(kept.get(LONG, async { Err(()) }).await, Err(()));
        assert_eq!(tokio::join!(kept.get(LONG, make()), kept.get(LONG, make())), (Ok(1), Ok(1)));
        assert_eq!(kept.get(Duration::ZERO, make()).await, Ok(2));
        assert_eq!(kept.get(LONG, make()).await, Ok(2));
        assert!(kept.is_of_use(LONG) && !kept.is_of_use(Duration::ZERO));
    }

    #[tokio::test]
    async fn a_pods_folders_are_walked_once_within_a_span() {
        let (folders, walks) = (Folders::default(), Arc::new(AtomicU32::new(0)));
        let get = async |uid: &str, span: Duration| {
            let walks = walks.clone();
            let walk = move || {
                walks.fetch_add(1, Ordering::SeqCst);
                Files::default()
            };
            folders.get(uid, span, walk).await;
        };
        for (uid, span, wanted) in [("a", LONG, 1), ("a", LONG, 1), ("b", LONG, 2), ("a", Duration::ZERO, 3)] {
            get(uid, span).await;
            assert_eq!(walks.load(Ordering::SeqCst), wanted, "{uid}");
        }
    }
}
