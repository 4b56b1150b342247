//! Codes of people, runs and versions.

use crate::wrong::code::{Class, Code, Place, Risk};

pub static UPGRADE_HALF_DONE: Code = Code {
    name: "UPGRADE_HALF_DONE",
    faults: &[62],
    class: Class::Notify,
    sentence: "{by}'s {verb} stopped{after} {ago}{why}. Nothing is broken; nodes may run different versions.",
    command: "evenkeel resume",
    place: Place::Anywhere,
    risk: Risk::Disruptive,
    time: "10 min",
    otherwise: "undo it: `evenkeel back`",
    decision: true,
    page: "A run that stopped waits where no node is half done. Going on and going back are both safe; which one is a choice.",
};

pub static UPGRADE_STUCK: Code = Code {
    name: "UPGRADE_STUCK",
    faults: &[62],
    class: Class::Page,
    sentence: "{by}'s {verb} needs a person{after}: {why}.",
    command: "evenkeel back",
    place: Place::Anywhere,
    risk: Risk::Disruptive,
    time: "10 min",
    otherwise: "read what was done: `evenkeel journal`; after mending it: `evenkeel resume`",
    decision: true,
    page: "A step failed and its own way back was taken once. The run does nothing more until somebody chooses.",
};

pub static VERSION_SKEW: Code = Code {
    name: "VERSION_SKEW",
    faults: &[64],
    class: Class::Notify,
    sentence: "Nodes run different versions: {versions}. {node} is behind and must be next.",
    command: "evenkeel kubectl get nodes -o wide",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "bring {node} to the version of the others",
    decision: false,
    page: "Different versions side by side are for the hours of an upgrade, not for days.",
};

pub static WRONG_CLUSTER: Code = Code {
    name: "WRONG_CLUSTER",
    faults: &[65],
    class: Class::Page,
    sentence: "This kubeconfig is for cluster {wanted}, this machine belongs to {cluster}. Nothing was asked of the other one.",
    command: "evenkeel kubeconfig",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "ask without --kubeconfig, or on a machine of {wanted}",
    decision: false,
    page: "An answer about another cluster than the one in mind is worse than none.",
};

pub static CONFIG_BAD: Code = Code {
    name: "CONFIG_BAD",
    faults: &[65],
    class: Class::Page,
    sentence: "The configuration of {node} is not usable: {why}. What runs goes on with what it was started with.",
    command: "evenkeel check-config",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "take the last change of {path} back",
    decision: false,
    page: "The program would not start with this file. What runs has read it before and goes on until it is restarted.",
};

pub static ONE_ADMINISTRATOR: Code = Code {
    name: "ONE_ADMINISTRATOR",
    faults: &[66],
    class: Class::Info,
    sentence: "Only one person can administer this cluster.",
    command: "evenkeel kubectl get clusterrolebindings -o wide",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "give a second person credentials of their own, and keep the recovery kit apart",
    decision: false,
    page: "What one person alone can do stops when that person is not there.",
};
