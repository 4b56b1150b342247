//! The store as admission and authorisation read it.

use std::sync::Arc;

use admit::{Place, Reader};
use api::Object;
use store::{ListQuery, Store};

/// Committed state, from memory.
pub(crate) struct StoreReader(pub Store);

impl Reader for StoreReader {
    fn get(&self, place: &Place) -> Option<Arc<Object>> {
        self.0.get(place)
    }

    fn list(&self, storage: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let query = ListQuery { namespace: namespace.map(Into::into), ..ListQuery::default() };
        self.0.list(storage, &query).map(|page| page.objects).unwrap_or_default()
    }
}
