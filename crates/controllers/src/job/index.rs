//! Sets of completion indexes as the API writes them: `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt;

use crate::kit::pod::PodRef;

/// Indexes read from one text; more is not a Job that could have been created.
const INDEXES_MAX: usize = 100_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(pub BTreeSet<i64>);

impl Indexes {
    pub fn parse(text: &str) -> Indexes {
        let mut all = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.trim().parse::<i64>(), last.trim().parse::<i64>()) {
                all.extend((first..=last).take(INDEXES_MAX.saturating_sub(all.len())));
            }
        }
        Indexes(all)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> i64 {
        i64::try_from(self.0.len()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(i64, i64)> = vec![];
        for index in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => ranges.push((*index, *index)),
            }
        }
        let word = |(first, last): &(i64, i64)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        };
        f.write_str(&ranges.iter().map(word).collect::<Vec<_>>().join(","))
    }
}

/// The completion index of a pod.
pub fn of_pod(pod: &PodRef) -> Option<i64> {
    let annotations = pod.pod.metadata.annotations.as_ref()?;
    annotations.get(super::COMPLETION_INDEX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Indexes;

    #[test]
    fn ranges_read_and_write() {
        for text in ["", "1", "1,2", "1,3-5,7", "0-99"] {
            assert_eq!(Indexes::parse(text).to_string(), text);
        }
    }
}
