//! Amounts of resources, in the units that decisions about room are made in.

use std::collections::BTreeMap;

use base::SmolStr;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Resource name -> amount: milli cores for `cpu`, bytes or pieces for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub BTreeMap<SmolStr, i64>);

impl Amounts {
    pub fn parse(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
        let one = |(name, quantity): (&String, &Quantity)| {
            let parsed = crate::Quantity::parse(&quantity.0).unwrap_or_default();
            let amount = if name == "cpu" { parsed.milli_ceil() } else { parsed.value_ceil() };
            (SmolStr::from(name), amount)
        };
        Amounts(list.into_iter().flatten().map(one).collect())
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += amount;
        }
    }

    pub fn subtract(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= amount;
        }
    }

    /// Per resource the larger of both.
    pub fn raise_to(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }
}
