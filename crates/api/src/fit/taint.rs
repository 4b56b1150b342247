//! Taints and what tolerates them.

use base::SmolStr;
use k8s_openapi::api::core::v1 as core;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: SmolStr,
    pub value: SmolStr,
    pub effect: SmolStr,
}

impl Taint {
    pub fn parse(taint: &core::Taint) -> Taint {
        Taint {
            key: taint.key.as_str().into(),
            value: taint.value.as_deref().unwrap_or_default().into(),
            effect: taint.effect.as_str().into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    key: SmolStr,
    exists: bool,
    value: SmolStr,
    effect: SmolStr,
}

impl Toleration {
    pub fn parse(toleration: &core::Toleration) -> Toleration {
        let text = |part: &Option<String>| SmolStr::from(part.as_deref().unwrap_or_default());
        Toleration {
            key: text(&toleration.key),
            exists: toleration.operator.as_deref() == Some("Exists"),
            value: text(&toleration.value),
            effect: text(&toleration.effect),
        }
    }

    pub fn tolerates(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_empty() || self.effect == taint.effect;
        let key = self.key.is_empty() && self.exists || self.key == taint.key;
        effect && key && (self.exists || self.value == taint.value)
    }
}
