//! Prints an error with every cause behind it, once each.

use std::error::Error;
use std::fmt;

/// Displays an error followed by its `source` chain: `open state: permission denied`.
///
/// Errors of this project never repeat their source in their own text, so this is the one place that joins them.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Chain;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("open state")]
    struct Outer(#[source] io::Error);

    #[test]
    fn joins_causes_once() {
        let error = Outer(io::Error::other("permission denied"));
        assert_eq!(Chain(&error).to_string(), "open state: permission denied");
    }
}
