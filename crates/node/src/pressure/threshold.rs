//! Thresholds: how little of something is too little. Written as upstream's `--eviction-hard`.

use api::Quantity;

use super::Signal;

/// A signal below this makes its condition true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub signal: Signal,
    pub least: Least,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// Bytes or pieces.
    Amount(i64),
    /// Hundredths of a percent of what there is.
    Share(u32),
}

/// Hundredths of a percent in a whole.
const SHARE_WHOLE: u32 = 10_000;

/// What is wrong with a list of thresholds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    #[error("{text:?} is no threshold: SIGNAL<QUANTITY or SIGNAL<PERCENT%")]
    Shape { text: String },
    #[error("{name:?} is no signal; there are {}", Signal::ALL.map(Signal::name).join(", "))]
    Signal { name: String },
    #[error("{text:?} is neither a quantity nor a percentage")]
    Amount { text: String },
}

/// Upstream's hard thresholds for memory and inodes, k3s's for room on disk (upstream keeps a tenth, and of the images'
/// disk three twentieths, free: a lot of a large disk), and room for the processes that cure a node.
pub fn defaults() -> Vec<Threshold> {
    vec![
        Threshold { signal: Signal::MemoryAvailable, least: Least::Amount(100 << 20) },
        Threshold { signal: Signal::NodeFsAvailable, least: Least::Share(500) },
        Threshold { signal: Signal::NodeFsInodesFree, least: Least::Share(500) },
        Threshold { signal: Signal::ImageFsAvailable, least: Least::Share(500) },
        Threshold { signal: Signal::ImageFsInodesFree, least: Least::Share(500) },
        Threshold { signal: Signal::PidAvailable, least: Least::Amount(1000) },
    ]
}

/// `memory.available<100Mi`, `nodefs.available<10%`. A list replaces the defaults as a whole; empty watches nothing.
pub fn parse(list: &[String]) -> Result<Vec<Threshold>, ThresholdError> {
    list.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).map(parse_one).collect()
}

fn parse_one(text: &str) -> Result<Threshold, ThresholdError> {
    let (name, amount) = text.split_once('<').ok_or_else(|| ThresholdError::Shape { text: text.to_owned() })?;
    let signal = Signal::ALL.into_iter().find(|signal| signal.name() == name.trim());
    let signal = signal.ok_or_else(|| ThresholdError::Signal { name: name.to_owned() })?;
    let wrong = || ThresholdError::Amount { text: amount.to_owned() };
    let amount = amount.trim();
    let least = match amount.strip_suffix('%') {
        Some(percent) => {
            let share = Quantity::parse(percent).map_err(|_| wrong())?.milli_ceil() / 10;
            Least::Share(u32::try_from(share).ok().filter(|share| *share <= SHARE_WHOLE).ok_or_else(wrong)?)
        }
        None => Least::Amount(Quantity::parse(amount).map_err(|_| wrong())?.value_ceil()),
    };
    Ok(Threshold { signal, least })
}

impl Threshold {
    /// The least amount of a whole of `capacity`.
    pub fn amount(&self, capacity: i64) -> i64 {
        match self.least {
            Least::Amount(amount) => amount,
            Least::Share(share) => i64::try_from(i128::from(capacity) * i128::from(share) / i128::from(SHARE_WHOLE))
                .expect("a share is below its whole"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_written_as_upstreams() {
        let parsed = |text: &str| parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
        let list = parsed("memory.available<1Gi,nodefs.available<12.5%,pid.available<10").unwrap();
        assert_eq!(list[0], Threshold { signal: Signal::MemoryAvailable, least: Least::Amount(1 << 30) });
        assert_eq!(list[1], Threshold { signal: Signal::NodeFsAvailable, least: Least::Share(1250) });
        assert_eq!(list[1].amount(1000), 125);
        assert_eq!(list[2].amount(1000), 10);
        assert_eq!(parsed(""), Ok(vec![]));
        for bad in ["memory.available", "memory.free<1Gi", "memory.available<x", "nodefs.available<101%"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
