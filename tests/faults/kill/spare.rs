//! How much of the machine's processors nobody used: whether a rate that was missed could have been reached.

use std::fs;

use anyhow::Context;

/// Ticks of all processors over the measured spans.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spare {
    idle: u64,
    all: u64,
}

// === impl Spare ===

impl Spare {
    pub fn measure(&mut self, span: impl FnOnce()) -> anyhow::Result<()> {
        let before = Spare::now()?;
        span();
        let after = Spare::now()?;
        self.idle += after.idle.saturating_sub(before.idle);
        self.all += after.all.saturating_sub(before.all);
        Ok(())
    }

    pub fn part(&self) -> f64 {
        self.idle as f64 / self.all.max(1) as f64
    }

    /// `cpu user nice system idle iowait irq softirq steal ...`: waiting for a disk is time to spare too.
    fn now() -> anyhow::Result<Spare> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let idle = ticks.get(3..5).context("/proc/stat has no idle time")?.iter().sum();
        Ok(Spare { idle, all: ticks.iter().sum() })
    }
}
