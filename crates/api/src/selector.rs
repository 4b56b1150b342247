//! Label and field selectors, as query strings and as `LabelSelector` objects.

use std::collections::BTreeMap;

use base::SmolStr;

use crate::Tree;

/// All requirements must hold. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: SmolStr,
    pub operator: Operator,
    pub values: Vec<SmolStr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    /// Also matches objects without the key.
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// `metadata.name=a,status.phase!=Running`: equality and inequality on declared paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Path, whether equality is wanted, value.
    pub terms: Vec<(SmolStr, bool, SmolStr)>,
}

/// A selector that cannot be parsed; `message` reads as upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    pub message: String,
}

// === impl LabelSelector ===

impl LabelSelector {
    pub fn matches(&self, labels: &BTreeMap<SmolStr, SmolStr>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// From a `meta/v1 LabelSelector` object (`matchLabels`, `matchExpressions`).
    pub fn from_tree(tree: &Tree) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in tree.get("matchLabels").and_then(Tree::as_object).into_iter().flatten() {
            let values = vec![value.as_str().unwrap_or_default().into()];
            requirements.push(Requirement { key: key.into(), operator: Operator::In, values });
        }
        for expression in tree.get("matchExpressions").and_then(Tree::as_array).into_iter().flatten() {
            requirements.push(Requirement::from_tree(expression)?);
        }
        Ok(LabelSelector { requirements })
    }
}

impl Requirement {
    fn from_tree(tree: &Tree) -> Result<Requirement, SelectorError> {
        let text = |name: &str| tree.get(name).and_then(Tree::as_str).unwrap_or_default();
        let operator = match text("operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            other => {
                return Err(SelectorError { message: format!("{other:?} is not a valid label selector operator") });
            }
        };
        let values = tree.get("values").and_then(Tree::as_array).into_iter().flatten();
        let values = values.filter_map(Tree::as_str).map(SmolStr::from).collect();
        Ok(Requirement { key: text("key").into(), operator, values })
    }

    fn matches(&self, labels: &BTreeMap<SmolStr, SmolStr>) -> bool {
        let have = labels.get(&self.key);
        let number = |text: &SmolStr| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(number);
        match self.operator {
            Operator::In => have.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => have.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => have.is_some(),
            Operator::DoesNotExist => have.is_none(),
            Operator::GreaterThan => have.and_then(number).zip(bound()).is_some_and(|(value, bound)| value > bound),
            Operator::LessThan => have.and_then(number).zip(bound()).is_some_and(|(value, bound)| value < bound),
        }
    }
}
