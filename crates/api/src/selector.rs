//! Label and field selectors, as query strings and as `LabelSelector` objects.

mod parse;

use std::collections::BTreeMap;
use std::fmt;

use base::SmolStr;

use crate::{Tree, names};

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

    /// From a query string: `app=web,tier in (a,b),!old,weight>3`.
    ///
    /// # Errors
    /// Text that upstream refuses, in upstream's words.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        parse::labels(text)
    }

    /// From a `meta/v1 LabelSelector` object (`matchLabels`, `matchExpressions`).
    pub fn from_tree(tree: &Tree) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in tree.get("matchLabels").and_then(Tree::as_object).into_iter().flatten() {
            let values = vec![value.as_str().unwrap_or_default().into()];
            requirements.push(Requirement { key: key.into(), operator: Operator::In, values }.checked()?);
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
        Requirement { key: text("key").into(), operator, values }.checked()
    }

    /// Holds the requirement against the rules of `labels.NewRequirement`.
    fn checked(mut self) -> Result<Requirement, SelectorError> {
        let wrong = |message: String| Err(SelectorError { message });
        if let Some(why) = names::qualified_name(&self.key).first() {
            return wrong(format!("key: Invalid value: {:?}: {why}", self.key.as_str()));
        }
        match self.operator {
            Operator::In | Operator::NotIn if self.values.is_empty() => {
                return wrong(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into(),
                );
            }
            Operator::Exists | Operator::DoesNotExist if !self.values.is_empty() => {
                let values = self.values.join(" ");
                return wrong(format!(
                    "values: Invalid value: [{values}]: values set must be empty for exists and does not exist"
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                let [only] = self.values.as_slice() else {
                    return wrong(
                        "values: Invalid value: []: for 'Gt', 'Lt' operators, exactly one value is required".into(),
                    );
                };
                if only.parse::<i64>().is_err() {
                    return wrong(format!(
                        "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                        only.as_str()
                    ));
                }
            }
            _ => {}
        }
        for (at, value) in self.values.iter().enumerate() {
            if let Some(why) = names::label_value(value).first() {
                return wrong(format!("values[{at}][{}]: Invalid value: {:?}: {why}", self.key, value.as_str()));
            }
        }
        self.values.sort();
        Ok(self)
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

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { key, operator, values } = self;
        let first = values.first().map_or("", SmolStr::as_str);
        match (operator, values.len()) {
            (Operator::In, 1) => write!(f, "{key}={first}"),
            (Operator::NotIn, 1) => write!(f, "{key}!={first}"),
            (Operator::In, _) => write!(f, "{key} in ({})", values.join(",")),
            (Operator::NotIn, _) => write!(f, "{key} notin ({})", values.join(",")),
            (Operator::Exists, _) => write!(f, "{key}"),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::GreaterThan, _) => write!(f, "{key}>{first}"),
            (Operator::LessThan, _) => write!(f, "{key}<{first}"),
        }
    }
}

// === impl FieldSelector ===

impl FieldSelector {
    /// From a query string: `metadata.name=a,status.phase!=Running`.
    ///
    /// # Errors
    /// Text that upstream refuses, in upstream's words. Which paths a kind knows is checked where the kind is known.
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        parse::fields(text)
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// `get` gives the value at a path; what is absent counts as the empty text, as upstream's field sets do.
    pub fn matches(&self, get: impl Fn(&str) -> Option<SmolStr>) -> bool {
        self.terms.iter().all(|(path, equal, value)| (get(path).unwrap_or_default() == *value) == *equal)
    }

    /// The value that a path must equal, where the selector says so: `metadata.name` makes a list a get.
    pub fn exact(&self, path: &str) -> Option<&SmolStr> {
        self.terms.iter().find(|(found, equal, _)| found == path && *equal).map(|(_, _, value)| value)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (path, equal, value)) in self.terms.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let operator = if *equal { "=" } else { "!=" };
            write!(f, "{comma}{path}{operator}{}", parse::escape(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{FieldSelector, LabelSelector};
    use std::collections::BTreeMap;

    fn read(text: &str) -> String {
        LabelSelector::parse(text).map_or_else(|error| error.to_string(), |selector| selector.to_string())
    }

    #[test]
    fn label_selectors_parse_as_upstream_does() {
        for (text, wanted) in [
            ("", ""),
            ("a=b", "a=b"),
            ("a == b, c!=d", "a=b,c!=d"),
            ("x in (b,a),y notin (c, d)", "x in (a,b),y notin (c,d)"),
            ("!x,y", "!x,y"),
            ("a=", "a="),
            ("a in (,b)", "a in (,b)"),
            ("n>3,m<7", "n>3,m<7"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            (
                "n>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
        assert!(read("a=b c d/e/f").contains("expected"));
        assert!(read("-a=b").contains("name part must consist of alphanumeric characters"));
    }

    #[test]
    fn label_selectors_match() {
        let labels: BTreeMap<_, _> = [("app".into(), "web".into()), ("n".into(), "5".into())].into();
        for (text, wanted) in [
            ("app=web", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web,db),n>4", true),
            ("n<5", false),
            ("!other", true),
            ("other", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), wanted, "{text}");
        }
    }

    #[test]
    fn field_selectors_parse_and_match() {
        let selector = FieldSelector::parse("metadata.name=a,status.phase!=Running").unwrap();
        assert_eq!(selector.to_string(), "metadata.name=a,status.phase!=Running");
        assert!(selector.matches(|path| (path == "metadata.name").then(|| "a".into())));
        assert!(!selector.matches(|path| Some(if path == "metadata.name" { "a" } else { "Running" }.into())));
        assert_eq!(selector.exact("metadata.name").map(|name| name.as_str()), Some("a"));
        let escaped = FieldSelector::parse(r"a=x\,y\=z").unwrap();
        assert_eq!(escaped.terms[0].2, "x,y=z");
        assert_eq!(escaped.to_string(), r"a=x\,y\=z");
        let error = FieldSelector::parse("abc").unwrap_err();
        assert_eq!(error.to_string(), "invalid selector: 'abc'; can't understand 'abc'");
    }
}
