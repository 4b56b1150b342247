//! What was changed by hand on this machine, as its own ledger has it.

use keeper::wrong::What;

use crate::layout::Layout;
use crate::wire::drift::{Shelf, Told};

pub fn facts(layout: &Layout) -> Vec<What> {
    let book = Shelf::new(layout).book().ok().flatten().unwrap_or_default();
    book.ledger.open().map(|line| Told::of(line).what()).collect()
}
