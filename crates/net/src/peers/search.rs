//! The largest packet that reaches a node and comes back, found with few questions. Pure: asks for a size, is told
//! whether it was answered.

/// Differences below this are not worth another question.
const PRECISION_BYTES: u32 = 8;
/// What every path must carry.
const FLOOR_V4_BYTES: u32 = 576;
const FLOOR_V6_BYTES: u32 = 1280;

/// A search that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Does a packet come through that fills the link?
    Whole { link: u32, floor: u32 },
    /// It does not. Does anything?
    Floor { link: u32, floor: u32 },
    /// `good` comes through, `bad` does not.
    Between { link: u32, good: u32, bad: u32 },
    /// `good` is the most; unless the whole was only lost by chance.
    Doubt { link: u32, good: u32 },
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Whole,
    Narrow(u32),
    /// The node does not answer at all: it is down, or answers nobody's echo requests.
    Silent,
}

// === impl Search ===

impl Search {
    pub fn new(link: u32, v4: bool) -> Search {
        let floor = if v4 { FLOOR_V4_BYTES } else { FLOOR_V6_BYTES };
        Search::Whole { link, floor: floor.min(link) }
    }

    /// Bytes of the packet to send next.
    pub fn size(&self) -> u32 {
        match *self {
            Search::Whole { link, .. } | Search::Doubt { link, .. } => link,
            Search::Floor { floor, .. } => floor,
            Search::Between { good, bad, .. } => good + (bad - good) / 2,
        }
    }

    pub fn step(self, answered: bool) -> Result<Search, Found> {
        match (self, answered) {
            // ## Whole | Doubt => the end
            (Search::Whole { .. } | Search::Doubt { .. }, true) => Err(Found::Whole),
            (Search::Doubt { good, .. }, false) => Err(Found::Narrow(good)),
            // ## Whole => Floor
            (Search::Whole { link, floor }, false) => Ok(Search::Floor { link, floor }),
            // ## Floor => the end | Between
            (Search::Floor { .. }, false) => Err(Found::Silent),
            (Search::Floor { link, floor }, true) => Ok(between(link, floor, link)),
            // ## Between => Between | Doubt
            (Search::Between { link, bad, .. }, true) => Ok(between(link, self.size(), bad)),
            (Search::Between { link, good, .. }, false) => Ok(between(link, good, self.size())),
        }
    }
}

fn between(link: u32, good: u32, bad: u32) -> Search {
    if bad - good <= PRECISION_BYTES { Search::Doubt { link, good } } else { Search::Between { link, good, bad } }
}

#[cfg(test)]
mod tests {
    use super::{Found, PRECISION_BYTES, Search};

    /// Asks a path that carries so much, and is silent for the questions listed.
    fn check(link: u32, carries: u32, lost: &[usize]) -> (Found, usize) {
        let mut search = Search::new(link, true);
        for question in 0.. {
            match search.step(search.size() <= carries && !lost.contains(&question)) {
                Ok(next) => search = next,
                Err(found) => return (found, question + 1),
            }
        }
        unreachable!("a search ends")
    }

    #[test]
    fn finds_what_the_path_carries() {
        assert_eq!(check(1500, 1500, &[]), (Found::Whole, 1));
        assert_eq!(check(1500, 0, &[]), (Found::Silent, 2));
        for (link, carries) in [(1500, 1400), (9000, 1500), (1500, 1492), (1500, 576), (65_535, 1280)] {
            let (found, questions) = check(link, carries, &[]);
            let Found::Narrow(size) = found else { panic!("{carries} of {link}: {found:?}") };
            assert!(size <= carries && carries < size + PRECISION_BYTES + 1, "{carries} of {link}: {size}");
            assert!(questions <= 18, "{questions}");
        }
    }

    #[test]
    fn a_lost_packet_makes_no_path_narrow() {
        assert_eq!(check(1500, 1500, &[0]).0, Found::Whole);
        assert_eq!(check(1500, 1500, &[0, 2, 4]).0, Found::Whole);
    }
}
