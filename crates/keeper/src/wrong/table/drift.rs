//! Codes of what somebody changed by hand.

use crate::wrong::code::{Class, Code, Place, Risk};

const OTHERWISE: &str = "take it back, or restart {node} with --drift-policy=repair; what is foreign is never removed";

pub static DRIFT_FIREWALL: Code = Code {
    name: "DRIFT_FIREWALL",
    faults: &[],
    class: Class::Notify,
    sentence: "The firewall of {node} was changed by hand: {what}, first seen {ago}; {who}{more}.",
    command: "evenkeel drift {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: OTHERWISE,
    decision: false,
    page: "A rule or table that nobody declared, or one of Evenkeel's own that is gone. Rules of others are compared with those that were there when the node joined.",
};

pub static DRIFT_FILE: Code = Code {
    name: "DRIFT_FILE",
    faults: &[],
    class: Class::Notify,
    sentence: "A file that Evenkeel keeps on {node} was changed by hand: {what}, first seen {ago}; {who}{more}.",
    command: "evenkeel drift {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: OTHERWISE,
    decision: false,
    page: "What is written there comes from the configuration; a change by hand lasts until the next start and is known to one person only.",
};

pub static DRIFT_CERTIFICATE: Code = Code {
    name: "DRIFT_CERTIFICATE",
    faults: &[],
    class: Class::Notify,
    sentence: "A certificate or key on {node} was changed by hand: {what}, first seen {ago}; {who}{more}.",
    command: "evenkeel drift {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: OTHERWISE,
    decision: false,
    page: "Certificates and keys are written by the program alone. A wrong mode opens a key to others; other content may keep the node from starting.",
};

pub static DRIFT_SYSCTL: Code = Code {
    name: "DRIFT_SYSCTL",
    faults: &[],
    class: Class::Notify,
    sentence: "A kernel setting that Evenkeel keeps on {node} was changed: {what}, first seen {ago}; {who}{more}.",
    command: "evenkeel drift {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: OTHERWISE,
    decision: false,
    page: "Pods are reached through these settings. A package or a tuning script may have set them as well.",
};

pub static DRIFT_UNIT: Code = Code {
    name: "DRIFT_UNIT",
    faults: &[],
    class: Class::Notify,
    sentence: "The unit that starts Evenkeel on {node} was changed by hand: {what}, first seen {ago}; {who}{more}.",
    command: "evenkeel drift {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: OTHERWISE,
    decision: false,
    page: "Settings belong in the configuration file or in evenkeel.env; a unit that was edited is written anew by the next `evenkeel install`.",
};

pub static DRIFT_MANIFEST: Code = Code {
    name: "DRIFT_MANIFEST",
    faults: &[],
    class: Class::Info,
    sentence: "An object of {node}'s deploy folder was changed in the cluster: {what}, first seen {ago}{more}.",
    command: "evenkeel drift {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "put the change into its file; the next change of the file takes the fields back",
    decision: false,
    page: "Who changes an object keeps the fields that were changed until its file changes. The file does not say what runs.",
};
